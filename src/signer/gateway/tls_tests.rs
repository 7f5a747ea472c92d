//! The gateway's certificate on disk and in handshakes, among them those of clients that it must refuse by name.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn identity(hosts: &[&str]) -> (tempfile::TempDir, TlsFiles, TlsIdentity) {
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles::in_directory(folder.path());
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    let (identity, made) = TlsIdentity::load_or_generate(&files, &hosts, NOW).unwrap();
    assert!(made);
    (folder, files, identity)
}

fn pin(files: &TlsFiles) -> PinnedCertificate {
    PinnedCertificate::from_pem(&fs::read(&files.certificate).unwrap()).unwrap()
}

/// Both ends' view of one handshake.
async fn handshake(
    identity: &TlsIdentity,
    config: Arc<ClientConfig>,
) -> (Result<(), TlsRefusal>, io::Result<Vec<u8>>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let client = async {
        let name = ServerName::try_from("not-in-the-certificate.example").unwrap();
        let mut stream = TlsConnector::from(config).connect(name, near).await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        Ok(text)
    };
    let server = async {
        let mut stream = identity.accept(far).await?;
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(())
    };
    tokio::join!(server, client)
}

#[test]
fn it_is_made_once_and_kept_private() {
    let (_folder, files, made) = identity(&["signer.example", "192.0.2.1"]);
    let (read, new) = TlsIdentity::load_or_generate(&files, &[], NOW).unwrap();
    assert!(!new);
    assert_eq!(read.certificate(), made.certificate());
    assert_eq!(read.expires(), NOW + VALIDITY);
    #[cfg(unix)]
    for path in [&files.certificate, &files.key] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}

#[test]
fn it_names_what_it_was_made_for() {
    let (_folder, _, identity) =
        identity(&["signer.example", "192.0.2.1", "2001:db8::1", "localhost"]);
    for host in [
        "signer.example",
        "192.0.2.1",
        "2001:db8::1",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        assert!(identity.covers(host), "{host}");
    }
    for host in ["other.example", "192.0.2.2", "", "a b"] {
        assert!(!identity.covers(host), "{host}");
    }
    let refused = parameters(&["a b".into()], NOW);
    assert!(matches!(refused, Err(CredentialsError::Host { .. })));
}

#[test]
fn a_renewal_replaces_both_and_half_of_one_is_noticed() {
    let (_folder, files, old) = identity(&[]);
    let old_key = fs::read(&files.key).unwrap();
    let new = TlsIdentity::renew(&files, &[], NOW).unwrap();
    assert_ne!(new.certificate_digest(), old.certificate_digest());
    fs::write(&files.key, old_key).unwrap();
    assert!(
        matches!(TlsIdentity::load(&files), Err(CredentialsError::Mismatch { key, .. }) if key == files.key)
    );
    fs::remove_file(&files.certificate).unwrap();
    let alone = TlsIdentity::load_or_generate(&files, &[], NOW);
    assert!(matches!(alone, Err(CredentialsError::Mismatch { .. })));
}

#[test]
fn what_is_no_certificate_or_key_is_refused() {
    let (_folder, files, _) = identity(&[]);
    fs::write(&files.key, "no key").unwrap();
    assert!(
        matches!(TlsIdentity::load(&files), Err(CredentialsError::Content { path, .. }) if path == files.key)
    );
    fs::write(&files.certificate, "no certificate").unwrap();
    assert!(
        matches!(TlsIdentity::load(&files), Err(CredentialsError::Content { path, .. }) if path == files.certificate)
    );
    assert!(PinnedCertificate::from_pem(b"").is_err());
}

#[test]
fn no_bytes_make_the_certificate_reader_panic() {
    let (_folder, _, identity) = identity(&[]);
    let whole = identity.certificate().to_vec();
    for cut in 0..whole.len() {
        let _ = not_after(&whole[..cut]);
        let mut changed = whole.clone();
        changed[cut] ^= 0xff;
        let _ = not_after(&changed);
    }
}

#[tokio::test]
async fn the_pinned_certificate_is_accepted_whatever_the_host() {
    let (_folder, files, identity) = identity(&[]);
    let (server, client) = handshake(&identity, pin(&files).client_config().unwrap()).await;
    assert_eq!(server, Ok(()));
    assert_eq!(client.unwrap(), b"hello");
}

#[tokio::test]
async fn another_certificate_is_refused_and_the_server_sees_why() {
    let (_folder, _, identity) = identity(&[]);
    let (_other_folder, other, _) = self::identity(&[]);
    let (server, client) = handshake(&identity, pin(&other).client_config().unwrap()).await;
    assert!(is_other_certificate(&client.unwrap_err()));
    assert_eq!(server.unwrap_err().label(), "tls_certificate_refused");
}

#[tokio::test]
async fn a_client_without_http_2_is_refused() {
    let (_folder, files, identity) = identity(&[]);
    for offered in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = (*pin(&files).client_config().unwrap()).clone();
        config.alpn_protocols = offered;
        let (server, _) = handshake(&identity, Arc::new(config)).await;
        assert_eq!(server.unwrap_err().label(), "tls_no_alpn");
    }
}

#[tokio::test]
async fn plaintext_is_refused() {
    let (_folder, _, identity) = identity(&[]);
    let (mut near, far) = tokio::io::duplex(1 << 16);
    near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(
        identity.accept(far).await.unwrap_err().label(),
        "tls_plaintext"
    );
}

#[test]
fn the_names_of_a_certificate_are_read_back() {
    let hosts = [
        "node.example",
        "192.0.2.1",
        "2001:db8::1",
        "xn--bcher-kva.example",
    ];
    let (_folder, files, _) = identity(&hosts);
    assert_eq!(files.hosts(), hosts);
    // Also when the key is lost: that is when they are asked for.
    std::fs::remove_file(&files.key).unwrap();
    assert_eq!(files.hosts(), hosts);
    std::fs::write(&files.certificate, "no certificate").unwrap();
    assert_eq!(files.hosts(), Vec::<String>::new());
    // However a certificate is cut short or bent, reading its names ends.
    let (_folder, _, whole) = identity(&hosts);
    for end in 0..whole.certificate().len() {
        let _ = alternative_names(whole.certificate().get(..end).unwrap());
        let mut bent = whole.certificate().to_vec();
        *bent.get_mut(end).unwrap() ^= 0x80;
        let _ = alternative_names(&bent);
    }
}
