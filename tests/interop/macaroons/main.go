// The macaroons of the interoperability test: `bake` makes one as lnd's bakery does, `check` reads and judges one. It is told
// the root key, and never sees the other side's code.
package main

import (
	"context"
	"encoding/hex"
	"flag"
	"net"
	"os"
	"strings"

	"github.com/go-macaroon-bakery/macaroon-bakery/bakery"
	"github.com/go-macaroon-bakery/macaroonpb"
	"google.golang.org/grpc/peer"
	"gopkg.in/macaroon.v2"

	"pilotlight.test/shared"
)

var (
	rootKey = flag.String("root", "", "the root key, in hex")
	rootID  = flag.String("id", "0", "the root key's name")
	op      = flag.String("op", "remotesigner:generate", "ENTITY:ACTION")
	file    = flag.String("file", "", "the macaroon's file")
	caveats = flag.String("caveats", "", "conditions to add, with commas between")
	source  = flag.String("source", "127.0.0.1", "where the call that is judged comes from")
)

func main() {
	command := os.Args[1]
	shared.Must(flag.CommandLine.Parse(os.Args[2:]))
	service := shared.Bakery(shared.Store{ID: []byte(*rootID), Key: shared.Unhex(*rootKey)})
	entity, action, _ := strings.Cut(*op, ":")
	ask := bakery.Op{Entity: entity, Action: action}
	if command == "bake" {
		bake(service, ask)
	} else {
		check(service, ask)
	}
}

func bake(service *bakery.Bakery, ask bakery.Op) {
	baked, err := service.Oven.NewMacaroon(context.Background(), bakery.LatestVersion, nil, ask)
	shared.Must(err)
	mac := baked.M()
	if *caveats != "" {
		for _, condition := range strings.Split(*caveats, ",") {
			shared.Must(mac.AddFirstPartyCaveat([]byte(condition)))
		}
	}
	bytes, err := mac.MarshalBinary()
	shared.Must(err)
	shared.Must(os.WriteFile(*file, bytes, 0o600))
}

func check(service *bakery.Bakery, ask bakery.Op) {
	bytes, err := os.ReadFile(*file)
	shared.Must(err)
	mac := &macaroon.Macaroon{}
	shared.Must(mac.UnmarshalBinary(bytes))
	again, err := mac.MarshalBinary()
	shared.Must(err)
	conditions := []string{}
	for _, caveat := range mac.Caveats() {
		conditions = append(conditions, string(caveat.Id))
	}
	// The identifier is a version byte and the bakery's protobuf, which lnd reads with the same codec.
	id := &macaroonpb.MacaroonId{}
	shared.Must(id.UnmarshalBinary(mac.Id()[1:]))
	ops := []string{}
	for _, each := range id.Ops {
		ops = append(ops, each.Entity+":"+strings.Join(each.Actions, "+"))
	}
	_, chain := mac.VerifySignature(shared.Unhex(*rootKey), nil)
	address := &net.TCPAddr{IP: net.ParseIP(*source), Port: 1}
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: address})
	allowed := shared.Check(ctx, service, mac, ask)
	shared.Say("checked", shared.Fields{
		"version": int(mac.Version()), "location": mac.Location(), "id_version": mac.Id()[0],
		"nonce": hex.EncodeToString(id.Nonce), "root": string(id.StorageId), "ops": ops, "caveats": conditions,
		"chain": text(chain), "allowed": text(allowed), "same_bytes": string(again) == string(bytes),
	})
}

func text(err error) string {
	if err == nil {
		return "yes"
	}
	return err.Error()
}
