// Package shared is what the interoperability test's Go programs have in common: a report in lines of JSON, ECDH as BOLT 8
// defines it, and macaroons as lnd makes and checks them.
package shared

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/btcsuite/btcd/btcec"
	"github.com/go-macaroon-bakery/macaroon-bakery/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/bakery/checkers"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"gopkg.in/macaroon.v2"
)

var printing sync.Mutex

// Fields are the members of one line of the report.
type Fields map[string]interface{}

// Say writes one line of the report to standard output.
func Say(event string, fields Fields) {
	line := Fields{"event": event}
	for name, value := range fields {
		line[name] = value
	}
	text, err := json.Marshal(line)
	Must(err)
	printing.Lock()
	defer printing.Unlock()
	fmt.Println(string(text))
}

// Must ends the program if something fails that cannot fail in a test that is set up well.
func Must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fatal:", err)
		os.Exit(1)
	}
}

// Unhex reads hex that must be right.
func Unhex(text string) []byte {
	bytes, err := hex.DecodeString(text)
	Must(err)
	return bytes
}

// NewKey draws a key.
func NewKey() *btcec.PrivateKey {
	var scalar [32]byte
	_, err := rand.Read(scalar[:])
	Must(err)
	key, _ := btcec.PrivKeyFromBytes(btcec.S256(), scalar[:])
	return key
}

// ECDH is lnd's keychain.PrivKeyECDH.ECDH: SHA-256 of the compressed product.
func ECDH(key *btcec.PrivateKey, point []byte) ([]byte, error) {
	other, err := btcec.ParsePubKey(point, btcec.S256())
	if err != nil {
		return nil, err
	}
	x, y := btcec.S256().ScalarMult(other.X, other.Y, key.D.Bytes())
	product := btcec.PublicKey{Curve: btcec.S256(), X: x, Y: y}
	hash := sha256.Sum256(product.SerializeCompressed())
	return hash[:], nil
}

// A Store holds the one root key of a bakery, under the name that lnd gives to its default one or another.
type Store struct {
	ID  []byte
	Key []byte
}

// Get is bakery.RootKeyStore's.
func (s Store) Get(_ context.Context, id []byte) ([]byte, error) {
	if string(id) != string(s.ID) {
		return nil, bakery.ErrNotFound
	}
	return s.Key, nil
}

// RootKey is bakery.RootKeyStore's.
func (s Store) RootKey(context.Context) (rootKey, id []byte, err error) {
	return s.Key, s.ID, nil
}

// Bakery is set up as lnd's macaroons.NewService does it: first-party caveats only, and the bakery's own checkers with lnd's
// `ipaddr` beside them.
func Bakery(store Store) *bakery.Bakery {
	service := bakery.New(bakery.BakeryParams{Location: "lnd", RootKeyStore: store})
	checker := service.Checker.FirstPartyCaveatChecker.(*checkers.Checker)
	checker.Register("ipaddr", "std", func(ctx context.Context, _, arg string) error {
		caller, ok := peer.FromContext(ctx)
		if !ok {
			return fmt.Errorf("unable to get peer info from context")
		}
		host, _, err := net.SplitHostPort(caller.Addr.String())
		if err != nil {
			return fmt.Errorf("unable to parse peer address")
		}
		if !net.ParseIP(arg).Equal(net.ParseIP(host)) {
			return fmt.Errorf("macaroon locked to different IP address")
		}
		return nil
	})
	return service
}

// Check is lnd's Service.CheckMacAuth.
func Check(ctx context.Context, service *bakery.Bakery, mac *macaroon.Macaroon, ops ...bakery.Op) error {
	_, err := service.Checker.Auth(macaroon.Slice{mac}).Allow(ctx, ops...)
	return err
}

// CheckCall is lnd's Service.ValidateMacaroon: the macaroon of a call's metadata.
func CheckCall(ctx context.Context, service *bakery.Bakery, ops ...bakery.Op) error {
	md, ok := metadata.FromIncomingContext(ctx)
	if !ok {
		return fmt.Errorf("unable to get metadata from context")
	}
	if len(md["macaroon"]) != 1 {
		return fmt.Errorf("expected 1 macaroon, got %d", len(md["macaroon"]))
	}
	bytes, err := hex.DecodeString(md["macaroon"][0])
	if err != nil {
		return err
	}
	mac := &macaroon.Macaroon{}
	if err := mac.UnmarshalBinary(bytes); err != nil {
		return err
	}
	return Check(ctx, service, mac, ops...)
}

// Secured says which protocol and which version of TLS a call's connection has. grpc-go of today refuses one without ALPN.
func Secured(caller *peer.Peer) Fields {
	info, ok := caller.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Fields{}
	}
	return Fields{"alpn": info.State.NegotiatedProtocol, "tls": info.State.Version}
}

// Credential is lnd's macaroons.MacaroonCredential.
type Credential struct {
	*macaroon.Macaroon
}

// RequireTransportSecurity is credentials.PerRPCCredentials'.
func (Credential) RequireTransportSecurity() bool {
	return true
}

// GetRequestMetadata is credentials.PerRPCCredentials'.
func (c Credential) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	bytes, err := c.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return map[string]string{"macaroon": hex.EncodeToString(bytes)}, nil
}
