// The signer of the interoperability test: dials a gateway as lnd's outbound remote signer does, on grpc-go, registers, and
// answers strictly in order, one request at a time. It never checks more of the server than lnd does. What it saw goes to
// standard output, a line of JSON each.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/btcsuite/btcd/btcec"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"gopkg.in/macaroon.v2"

	"pilotlight.test/shared"
	rpc "pilotlight.test/watchonlyrpc"
)

var (
	server   = flag.String("server", "", "HOST:PORT to dial")
	cert     = flag.String("cert", "", "PEM file of the server's certificate")
	macFile  = flag.String("macaroon", "", "file of the binary macaroon; none: no macaroon is sent")
	keyHex   = flag.String("key", "", "the node's key, in hex")
	timeout  = flag.Duration("timeout", 5*time.Second, "how long to wait for the connection, and for the registration's answer")
	delay    = flag.Duration("delay", 0, "how long an ECDH takes")
	quick    = flag.Int("quick", 0, "how many ECDH take no time all the same")
	attempts = flag.Int("attempts", 1, "how often to dial before giving up")
	redial   = flag.Duration("redial", time.Second, "first wait before dialling again")
)

func main() {
	flag.Parse()
	key, _ := btcec.PrivKeyFromBytes(btcec.S256(), shared.Unhex(*keyHex))
	wait := *redial
	for attempt := 1; attempt <= *attempts; attempt++ {
		registered := attend(key)
		// lnd begins anew after a registration that was completed, and else waits half as long again, at most a minute.
		if registered {
			wait = *redial
		}
		if attempt == *attempts {
			break
		}
		time.Sleep(wait)
		if !registered {
			wait = wait * 3 / 2
			if wait > time.Minute {
				wait = time.Minute
			}
		}
	}
	shared.Say("exit", nil)
}

// attend makes one connection and serves it to its end. Whether the registration was completed.
func attend(key *btcec.PrivateKey) bool {
	pem, err := os.ReadFile(*cert)
	shared.Must(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		shared.Must(fmt.Errorf("%s: no certificate", *cert))
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "")),
		grpc.WithBlock(),
	}
	if *macFile != "" {
		bytes, err := os.ReadFile(*macFile)
		shared.Must(err)
		mac := &macaroon.Macaroon{}
		shared.Must(mac.UnmarshalBinary(bytes))
		options = append(options, grpc.WithPerRPCCredentials(shared.Credential{Macaroon: mac}))
	}
	dialing, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	conn, err := grpc.DialContext(dialing, *server, options...)
	if err != nil {
		shared.Say("dial_failed", shared.Fields{"error": err.Error(), "tls": diagnose(pool)})
		return false
	}
	defer conn.Close()
	ctx, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	stream, err := rpc.NewWatchOnlyClient(conn).SignCoordinatorStreams(ctx)
	if err != nil {
		ended("open", err)
		return false
	}
	registration := &rpc.SignerRegistration{
		RegistrationChallenge: []byte("registrationChallenge"),
		RegistrationInfo:      "outboundSigner",
	}
	err = stream.Send(&rpc.SignCoordinatorResponse{
		RefRequestId:     1,
		SignResponseType: &rpc.SignCoordinatorResponse_SignerRegistration{SignerRegistration: registration},
	})
	// EOF says no more than that the call is over; why, the receipt says.
	if err != nil && err != io.EOF {
		ended("register", err)
		return false
	}
	late := time.AfterFunc(*timeout, hangUp)
	first, err := stream.Recv()
	late.Stop()
	if err != nil {
		ended("register", err)
		return false
	}
	return serve(key, stream, first)
}

func serve(key *btcec.PrivateKey, stream rpc.WatchOnly_SignCoordinatorStreamsClient, first *rpc.SignCoordinatorRequest) bool {
	response := first.GetRegistrationResponse()
	if first.RequestId != 1 || response == nil {
		shared.Say("unexpected", shared.Fields{"message": first.String()})
		return false
	}
	if refusal, refused := response.RegistrationResponseType.(*rpc.RegistrationResponse_RegistrationError); refused {
		shared.Say("registration_error", shared.Fields{"error": refusal.RegistrationError})
		return false
	}
	complete := response.GetRegistrationComplete()
	if complete == nil {
		shared.Say("unexpected", shared.Fields{"message": first.String()})
		return false
	}
	fields := shared.Fields{"signature": complete.Signature, "info": complete.RegistrationInfo}
	if caller, ok := peer.FromContext(stream.Context()); ok {
		fields["secured"] = shared.Secured(caller)
	}
	shared.Say("registered", fields)
	for {
		request, err := stream.Recv()
		if err != nil {
			ended("serve", err)
			return true
		}
		answer := answer(key, request)
		answer.RefRequestId = request.RequestId
		if err := stream.Send(answer); err != nil {
			_, err = stream.Recv()
			ended("serve", err)
			return true
		}
	}
}

func answer(key *btcec.PrivateKey, request *rpc.SignCoordinatorRequest) *rpc.SignCoordinatorResponse {
	switch asked := request.SignRequestType.(type) {
	case *rpc.SignCoordinatorRequest_Ping:
		shared.Say("ping", shared.Fields{"id": request.RequestId, "ping": asked.Ping})
		return &rpc.SignCoordinatorResponse{SignResponseType: &rpc.SignCoordinatorResponse_Pong{Pong: true}}
	case *rpc.SignCoordinatorRequest_SharedKeyRequest:
		secret, err := sharedKey(key, request.RequestId, asked.SharedKeyRequest)
		if err != nil {
			return refuse(request, err.Error())
		}
		return &rpc.SignCoordinatorResponse{SignResponseType: &rpc.SignCoordinatorResponse_SharedKeyResponse{
			SharedKeyResponse: &rpc.SharedKeyResponse{SharedKey: secret},
		}}
	case *rpc.SignCoordinatorRequest_SignMessageReq:
		// No signature: enough to see that both ends mean the same fields.
		signature := append([]byte("signed: "), asked.SignMessageReq.Msg...)
		return &rpc.SignCoordinatorResponse{SignResponseType: &rpc.SignCoordinatorResponse_SignMessageResp{
			SignMessageResp: &rpc.SignMessageResp{Signature: signature},
		}}
	case *rpc.SignCoordinatorRequest_MuSig2CleanupRequest:
		return &rpc.SignCoordinatorResponse{SignResponseType: &rpc.SignCoordinatorResponse_MuSig2CleanupResponse{
			MuSig2CleanupResponse: &rpc.MuSig2CleanupResponse{},
		}}
	default:
		return refuse(request, "unsupported request")
	}
}

// sharedKey has the rules of lnd's signrpc.DeriveSharedKey.
func sharedKey(key *btcec.PrivateKey, id uint64, request *rpc.SharedKeyRequest) ([]byte, error) {
	if len(request.EphemeralPubkey) != 33 {
		return nil, fmt.Errorf("ephemeral pubkey must be 33 bytes")
	}
	locator, raw := request.KeyLoc, request.GetKeyDesc().GetRawKeyBytes()
	if request.KeyDesc != nil {
		if locator != nil {
			return nil, fmt.Errorf("use either key_desc or key_loc")
		}
		locator = request.KeyDesc.KeyLoc
	}
	if len(raw) != 0 && locator.GetKeyIndex() != 0 {
		return nil, fmt.Errorf("if key_desc.raw_key_bytes is set, key_desc.key_loc.key_index must be 0")
	}
	shared.Say("ecdh", shared.Fields{
		"id": id, "family": locator.GetKeyFamily(), "index": locator.GetKeyIndex(), "raw": hex.EncodeToString(raw),
	})
	if *quick--; *quick < 0 {
		time.Sleep(*delay)
	}
	return shared.ECDH(key, request.EphemeralPubkey)
}

func refuse(request *rpc.SignCoordinatorRequest, text string) *rpc.SignCoordinatorResponse {
	shared.Say("refused", shared.Fields{"id": request.RequestId, "error": text})
	return &rpc.SignCoordinatorResponse{SignResponseType: &rpc.SignCoordinatorResponse_SignerError{
		SignerError: &rpc.SignerError{Error: text},
	}}
}

func ended(step string, err error) {
	// What Go's stream says of the status OK.
	if err == io.EOF {
		err = nil
	}
	state := status.Convert(err)
	shared.Say("ended", shared.Fields{"step": step, "code": state.Code().String(), "message": state.Message()})
}

// diagnose says why TLS fails, which lnd's signer never learns: grpc-go tells it only that time is up.
func diagnose(pool *x509.CertPool) string {
	host, _, err := net.SplitHostPort(*server)
	shared.Must(err)
	conn, err := tls.Dial("tcp", *server, &tls.Config{RootCAs: pool, ServerName: host, NextProtos: []string{"h2"}})
	if err != nil {
		return err.Error()
	}
	conn.Close()
	return ""
}
