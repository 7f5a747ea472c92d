//! The numbers of BOLT 8's Appendix A, Transport Test Vectors, in this project's own shape.
//!
//! From `08-transport.md` of lightning/bolts, commit a3772650d8ebc06acf457fcadf97968ebfc4dfff, by the Lightning Network
//! specification's authors, licensed under CC BY 4.0 (<https://creativecommons.org/licenses/by/4.0/>). Changes: rearranged as Rust
//! constants, hex without `0x`; what the two sides have in common is written once. Two quirks of the document: it says "1001 times" though its
//! last output, 1001, is of the 1002nd message; and its debugging comments under "act3 bad rs test" are of another input.
#![allow(dead_code, missing_docs, unreachable_pub)]

/// The private keys of both sides, in hex.
pub struct Keys {
    pub initiator_static: &'static str,
    pub initiator_ephemeral: &'static str,
    pub responder_static: &'static str,
    pub responder_ephemeral: &'static str,
}

/// What one ECDH and the HKDF after it give.
pub struct Mixed {
    /// `ss`
    pub shared: &'static str,
    /// `ck`
    pub chaining_key: &'static str,
    /// `temp_k1`, `temp_k2`, `temp_k3`
    pub cipher_key: &'static str,
}

/// A handshake that has to fail.
pub struct Refusal {
    /// The vector's name.
    pub name: &'static str,
    /// The error as the document writes it.
    pub error: &'static str,
    /// The act that is refused.
    pub act: usize,
    /// What the other side sends, in order; the last is refused.
    pub acts: &'static [&'static str],
}

pub const KEYS: Keys = Keys {
    initiator_static: "1111111111111111111111111111111111111111111111111111111111111111",
    initiator_ephemeral: "1212121212121212121212121212121212121212121212121212121212121212",
    responder_static: "2121212121212121212121212121212121212121212121212121212121212121",
    responder_ephemeral: "2222222222222222222222222222222222222222222222222222222222222222",
};

pub const INITIATOR_ID: &str = "034f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa";
pub const RESPONDER_ID: &str = "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7";

/// The acts of "transport-initiator successful handshake" and "transport-responder successful handshake", which agree.
pub const ACT_ONE: &str = "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a";
pub const ACT_TWO: &str = "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae";
pub const ACT_THREE: &str = "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139ba";

/// Acts one, two and three: `es`, `ee`, `se`.
pub const MIXED: [Mixed; 3] = [
    Mixed {
        shared: "1e2fb3c8fe8fb9f262f649f64d26ecf0f2c0a805a767cf02dc2d77a6ef1fdcc3",
        chaining_key: "b61ec1191326fa240decc9564369dbb3ae2b34341d1e11ad64ed89f89180582f",
        cipher_key: "e68f69b7f096d7917245f5e5cf8ae1595febe4d4644333c99f9c4a1282031c9f",
    },
    Mixed {
        shared: "c06363d6cc549bcb7913dbb9ac1c33fc1158680c89e972000ecd06b36c472e47",
        chaining_key: "e89d31033a1b6bf68c07d22e08ea4d7884646c4b60a9528598ccb4ee2c8f56ba",
        cipher_key: "908b166535c01a935cf1e130a5fe895ab4e6f3ef8855d87e9b7581c4ab663ddc",
    },
    Mixed {
        shared: "b36b6d195982c5be874d6d542dc268234379e1ae4ff1709402135b7de5cf0766",
        chaining_key: "919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01",
        cipher_key: "981a46c820fb7a241bc8184ba4bb1f01bcdfafb00dde80098cb8c38db9141520",
    },
];

/// The initiator's sending key, which is the responder's receiving key.
pub const SK: &str = "969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9";
/// The initiator's receiving key.
pub const RK: &str = "bb9020b8965f4df047e07f955f3c4b88418984aadc5cdb35096b9ea8fa5c3442";
/// The chaining key at the end of act three.
pub const CK: &str = "919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01";

/// What the initiator has to refuse.
pub const INITIATOR_REFUSALS: &[Refusal] = &[
    Refusal {
        name: "transport-initiator act2 short read test",
        error: "ACT2_READ_FAILED",
        act: 2,
        acts: &[
            "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730",
        ],
    },
    Refusal {
        name: "transport-initiator act2 bad version test",
        error: "ACT2_BAD_VERSION",
        act: 2,
        acts: &[
            "0102466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae",
        ],
    },
    Refusal {
        name: "transport-initiator act2 bad key serialization test",
        error: "ACT2_BAD_PUBKEY",
        act: 2,
        acts: &[
            "0004466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae",
        ],
    },
    Refusal {
        name: "transport-initiator act2 bad MAC test",
        error: "ACT2_BAD_TAG",
        act: 2,
        acts: &[
            "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730af",
        ],
    },
];

/// What the responder has to refuse.
pub const RESPONDER_REFUSALS: &[Refusal] = &[
    Refusal {
        name: "transport-responder act1 short read test",
        error: "ACT1_READ_FAILED",
        act: 1,
        acts: &[
            "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c",
        ],
    },
    Refusal {
        name: "transport-responder act1 bad version test",
        error: "ACT1_BAD_VERSION",
        act: 1,
        acts: &[
            "01036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a",
        ],
    },
    Refusal {
        name: "transport-responder act1 bad key serialization test",
        error: "ACT1_BAD_PUBKEY",
        act: 1,
        acts: &[
            "00046360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a",
        ],
    },
    Refusal {
        name: "transport-responder act1 bad MAC test",
        error: "ACT1_BAD_TAG",
        act: 1,
        acts: &[
            "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6b",
        ],
    },
    Refusal {
        name: "transport-responder act3 bad version test",
        error: "ACT3_BAD_VERSION",
        act: 3,
        acts: &[
            ACT_ONE,
            "01b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139ba",
        ],
    },
    Refusal {
        name: "transport-responder act3 short read test",
        error: "ACT3_READ_FAILED",
        act: 3,
        acts: &[
            ACT_ONE,
            "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139",
        ],
    },
    Refusal {
        name: "transport-responder act3 bad MAC for ciphertext test",
        error: "ACT3_BAD_CIPHERTEXT",
        act: 3,
        acts: &[
            ACT_ONE,
            "00c9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139ba",
        ],
    },
    Refusal {
        name: "transport-responder act3 bad rs test",
        error: "ACT3_BAD_PUBKEY",
        act: 3,
        acts: &[
            ACT_ONE,
            "00bfe3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa2235536ad09a8ee351870c2bb7f78b754a26c6cef79a98d25139c856d7efd252c2ae73c",
        ],
    },
    Refusal {
        name: "transport-responder act3 bad MAC test",
        error: "ACT3_BAD_TAG",
        act: 3,
        acts: &[
            ACT_ONE,
            "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139bb",
        ],
    },
];

/// "transport-message test": the initiator sends this (`hello`) again and again, under [`SK`].
pub const MESSAGE: &str = "68656c6c6f";

/// The frame of the message with that index, from 0.
pub const OUTPUTS: &[(u64, &str)] = &[
    (
        0,
        "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95",
    ),
    (
        1,
        "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1",
    ),
    (
        500,
        "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8",
    ),
    (
        501,
        "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd",
    ),
    (
        1000,
        "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09",
    ),
    (
        1001,
        "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36",
    ),
];

/// The chaining key and the sending key after each rotation.
pub const ROTATIONS: &[(&str, &str)] = &[
    (
        "cc2c6e467efc8067720c2d09c139d1f77731893aad1defa14f9bf3c48d3f1d31",
        "3fbdc101abd1132ca3a0ae34a669d8d9ba69a587e0bb4ddd59524541cf4813d8",
    ),
    (
        "728366ed68565dc17cf6dd97330a859a6a56e87e2beef3bd828a4c4a54d8df06",
        "9e0477f9850dca41e42db0e4d154e3a098e5a000d995e421849fcd5df27882bd",
    ),
];
