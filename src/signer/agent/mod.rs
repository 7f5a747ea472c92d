//! The signer's end of the stream: holds the node's key, dials a gateway (Pilotlight's or a watch-only lnd's), answers ECDH.
