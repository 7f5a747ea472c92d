//! TLS of the signer's stream: the gateway's certificate, and the pin by which a signer knows it.
//!
//! For: a certificate of our own, self-signed, with the hosts and addresses under which signers dial; lnd's signer takes that
//! file as its only root. TLS 1.3 only, ALPN `h2`, no resumption: each connection shows the certificate, because the agent binds
//! its proof to what it sees. The key is P-256, as lnd's is.
//!
//! It never asks for the time, and it never falls back: no plaintext, no older version, no other root.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::caveat::parse_rfc3339;
use super::credentials::{CredentialsError, read_private, read_public, write_private};

/// The protocol that both ends must agree on (RFC 9113 § 3.2).
pub(crate) const ALPN: &[u8] = b"h2";

/// How long a certificate is good: lnd's 14 months. Signers that check it must be given the next one before that.
const VALIDITY: Duration = Duration::from_secs(14 * 30 * 86_400);

/// How far a signer's clock may be behind ours.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// Hosts that every certificate names, so that a signer on the same machine needs no setting.
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the certificate and its key are kept, both 0600. The certificate is no secret: it is what signers are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its key, in PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// `signer.cert` and `signer.key` in this directory.
    pub fn in_directory(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        Self {
            certificate: directory.join("signer.cert"),
            key: directory.join("signer.key"),
        }
    }

    /// The names and addresses of the certificate that is there, but for those that every one has. None if there is no
    /// certificate, or none that can be read; its key may be missing or another's.
    pub fn hosts(&self) -> Vec<String> {
        let Ok(text) = read_public(&self.certificate) else {
            return Vec::new();
        };
        let names = CertificateDer::from_pem_slice(&text).ok();
        let names = names.and_then(|certificate| alternative_names(&certificate));
        let mut names = names.unwrap_or_default();
        names.retain(|name| !ALWAYS.contains(&name.as_str()));
        names
    }
}

/// The gateway's certificate with its key, ready to serve.
#[derive(Clone)]
pub struct TlsIdentity {
    certificate: CertificateDer<'static>,
    expires: Duration,
    config: Arc<ServerConfig>,
}

impl TlsIdentity {
    /// Loads certificate and key, or makes them if neither is there. The flag says whether they were made. `hosts` are the
    /// names and addresses under which signers dial; `localhost` and the loopback addresses are always in. `now` is time since the
    /// Unix epoch.
    ///
    /// # Errors
    /// [`CredentialsError`]. A certificate that does not name all hosts, or has expired, is loaded all the same: see
    /// [`TlsIdentity::covers`] and [`TlsIdentity::expires`].
    pub fn load_or_generate(
        files: &TlsFiles,
        hosts: &[String],
        now: Duration,
    ) -> Result<(Self, bool), CredentialsError> {
        match Self::load(files) {
            Err(CredentialsError::NotFound { path }) if path == files.certificate => {
                // A key alone is not written over: it may be all that somebody has left.
                match read_private(&files.key) {
                    Err(CredentialsError::NotFound { .. }) => {
                        Self::renew(files, hosts, now).map(|made| (made, true))
                    }
                    Ok(_) => Err(CredentialsError::Mismatch {
                        certificate: files.certificate.clone(),
                        key: files.key.clone(),
                    }),
                    Err(error) => Err(error),
                }
            }
            loaded => loaded.map(|identity| (identity, false)),
        }
    }

    /// Loads certificate and key.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn load(files: &TlsFiles) -> Result<Self, CredentialsError> {
        let content = |path: &Path, expected| CredentialsError::Content {
            path: path.into(),
            expected,
        };
        let certificate = CertificateDer::from_pem_slice(&read_public(&files.certificate)?)
            .map_err(|_| content(&files.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&read_private(&files.key)?)
            .map_err(|_| content(&files.key, "private key"))?;
        Self::new(certificate, key).map_err(|error| match error {
            CredentialsError::Mismatch { .. } => CredentialsError::Mismatch {
                certificate: files.certificate.clone(),
                key: files.key.clone(),
            },
            other => other,
        })
    }

    /// Makes a new key and certificate and replaces the files. Signers must then be given the new certificate. If this is cut
    /// short between the two files, loading them says so.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn renew(
        files: &TlsFiles,
        hosts: &[String],
        now: Duration,
    ) -> Result<Self, CredentialsError> {
        let tls = |error: rcgen::Error| CredentialsError::Tls(error.to_string());
        let key = KeyPair::generate().map_err(tls)?;
        let certificate = parameters(hosts, now)?.self_signed(&key).map_err(tls)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let key_der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| CredentialsError::Tls(error.to_string()))?;
        let identity = Self::new(certificate.der().clone(), key_der)?;
        write_private(&files.key, key_pem.as_bytes())?;
        write_private(&files.certificate, certificate.pem().as_bytes())?;
        Ok(identity)
    }

    fn new(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CredentialsError> {
        let expires = not_after(&certificate)
            .ok_or_else(|| CredentialsError::Tls("the certificate has no end".into()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| CredentialsError::Tls(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => CredentialsError::Mismatch {
                    certificate: PathBuf::new(),
                    key: PathBuf::new(),
                },
                other => CredentialsError::Tls(other.to_string()),
            })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            certificate,
            expires,
            config: Arc::new(config),
        })
    }

    /// The certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// SHA-256 of the certificate in DER: what people compare, and what the agent binds its proof to.
    pub fn certificate_digest(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// When the certificate ends, as time since the Unix epoch.
    pub fn expires(&self) -> Duration {
        self.expires
    }

    /// Whether a host can stand in a certificate: a DNS name or an address, without a port.
    ///
    /// # Errors
    /// [`CredentialsError::Host`].
    pub fn check_host(host: &str) -> Result<(), CredentialsError> {
        alternative_name(host).map(drop)
    }

    /// Whether a signer that dials this host finds it in the certificate.
    pub fn covers(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else {
            return false;
        };
        ParsedCertificate::try_from(&self.certificate)
            .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
    }

    /// The server's end of a TLS handshake. It has no deadline of its own.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: S,
    ) -> Result<tokio_rustls::server::TlsStream<S>, TlsRefusal> {
        let stream = tokio_rustls::TlsAcceptor::from(Arc::clone(&self.config))
            .accept(socket)
            .await
            .map_err(|error| TlsRefusal::of(&error))?;
        // rustls refuses a client whose protocols are all others, but takes one that names none.
        if stream.get_ref().1.alpn_protocol() == Some(ALPN) {
            Ok(stream)
        } else {
            Err(TlsRefusal::NoAlpn)
        }
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why a connection did not become a TLS connection. For events: what the other side did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum TlsRefusal {
    /// It did not speak TLS.
    NotTls,
    /// It did not offer HTTP/2.
    NoAlpn,
    /// It did not like our certificate: another one was pinned, the host is not in it, or it has expired.
    CertificateRefused,
    /// It has no version or cipher in common with us.
    Incompatible,
    /// It went away, or broke the protocol.
    Broken,
}

impl TlsRefusal {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::NotTls => "tls_plaintext",
            Self::NoAlpn => "tls_no_alpn",
            Self::CertificateRefused => "tls_certificate_refused",
            Self::Incompatible => "tls_incompatible",
            Self::Broken => "tls_broken",
        }
    }

    fn of(error: &io::Error) -> Self {
        use rustls::AlertDescription as Alert;
        match inner(error) {
            Some(rustls::Error::InvalidMessage(_)) => Self::NotTls,
            Some(rustls::Error::NoApplicationProtocol) => Self::NoAlpn,
            Some(rustls::Error::PeerIncompatible(_)) => Self::Incompatible,
            Some(rustls::Error::AlertReceived(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                // What rustls says when a root of the same name has another key: the certificate before a renewal.
                | Alert::DecryptError
                | Alert::AccessDenied,
            )) => Self::CertificateRefused,
            _ => Self::Broken,
        }
    }
}

impl fmt::Display for TlsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTls => "it does not speak TLS",
            Self::NoAlpn => "it does not offer HTTP/2 (ALPN h2)",
            Self::CertificateRefused => {
                "it does not take our certificate: its file holds another one, the certificate lacks the name that it dialled, or has expired"
            }
            Self::Incompatible => "it has no version (1.3 is asked for) or cipher of TLS in common with us",
            Self::Broken => "it left during the TLS handshake, or broke it",
        })
    }
}

fn inner(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// The one certificate that a signer accepts from its server, to the byte.
///
/// Neither its names nor its end are looked at, and it may be that of an authority (lnd's are): the bytes say more than any of
/// these. A certificate that is renewed must be pinned anew.
#[derive(Clone, PartialEq, Eq)]
pub struct PinnedCertificate(CertificateDer<'static>);

impl PinnedCertificate {
    /// The first certificate of a text in PEM.
    ///
    /// # Errors
    /// [`CredentialsError::NotPem`].
    pub fn from_pem(text: &[u8]) -> Result<Self, CredentialsError> {
        CertificateDer::from_pem_slice(text)
            .map(Self)
            .map_err(|_| CredentialsError::NotPem)
    }

    /// A client that accepts this certificate and no other.
    pub(crate) fn client_config(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let provider = provider();
        let verifier = PinVerifier {
            pinned: self.clone(),
            provider: Arc::clone(&provider),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| CredentialsError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for PinnedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedCertificate").finish_non_exhaustive()
    }
}

/// Whether a client's handshake failed because the server showed another certificate than the pinned one.
pub(crate) fn is_other_certificate(error: &io::Error) -> bool {
    matches!(inner(error), Some(rustls::Error::InvalidCertificate(_)))
}

#[derive(Debug)]
struct PinVerifier {
    pinned: PinnedCertificate,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // A certificate is public: nothing is given away by how long this takes.
        if end_entity.as_ref() == self.pinned.0.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
    }

    /// That the server holds the key of the certificate that it shows (RFC 8446 § 4.4.3).
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn parameters(hosts: &[String], now: Duration) -> Result<CertificateParams, CredentialsError> {
    let mut params = CertificateParams::default();
    for host in ALWAYS.into_iter().chain(hosts.iter().map(String::as_str)) {
        let name = alternative_name(host)?;
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "pilotlight signer gateway");
    subject.push(DnType::CommonName, "pilotlight");
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // A clock that is wildly ahead must not make the sum overflow: the year 9000 will do.
    let now = now.min(Duration::from_secs(221_845_392_000));
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + (now + VALIDITY);
    Ok(params)
}

fn alternative_name(host: &str) -> Result<SanType, CredentialsError> {
    let refused = || CredentialsError::Host { host: host.into() };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    match ServerName::try_from(host) {
        Ok(ServerName::DnsName(name)) => {
            let name = name.as_ref().try_into().map_err(|_| refused())?;
            Ok(SanType::DnsName(name))
        }
        _ => Err(refused()),
    }
}

/// One element of DER (X.690 § 8.1): its tag, its content, and what follows it.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if bytes.len() > 4 {
            return None;
        }
        let length = bytes
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte));
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// What follows the issuer of a certificate (RFC 5280 § 4.1): its validity, and the rest.
fn after_issuer(certificate: &[u8]) -> Option<&[u8]> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    Some(fields)
}

/// The DNS names and addresses for which a certificate is (RFC 5280 § 4.2.1.6).
pub(super) fn alternative_names(certificate: &[u8]) -> Option<Vec<String>> {
    const EXTENSIONS: u8 = 0xa3;
    const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
    const OCTET_STRING: u8 = 0x04;
    const DNS_NAME: u8 = 0x82;
    const ADDRESS: u8 = 0x87;
    let mut fields = after_issuer(certificate)?;
    let mut extensions = loop {
        let (tag, content, rest) = element(fields)?;
        if tag == EXTENSIONS {
            break element(content)?.1;
        }
        fields = rest;
    };
    let mut names = loop {
        let (_, extension, rest) = element(extensions)?;
        let (_, kind, mut value) = element(extension)?;
        if kind == SUBJECT_ALT_NAME {
            // It may be marked as critical.
            if value.first() != Some(&OCTET_STRING) {
                value = element(value)?.2;
            }
            break element(element(value)?.1)?.1;
        }
        extensions = rest;
    };
    let mut found = Vec::new();
    while let Some((tag, content, rest)) = element(names) {
        names = rest;
        let address = || {
            let four = <[u8; 4]>::try_from(content).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from))
        };
        match tag {
            DNS_NAME => found.extend(std::str::from_utf8(content).map(str::to_owned)),
            ADDRESS => found.extend(address().map(|address| address.to_string())),
            _ => {}
        }
    }
    Some(found)
}

/// When a certificate ends (RFC 5280 § 4.1.2.5), as time since the Unix epoch.
pub(super) fn not_after(certificate: &[u8]) -> Option<Duration> {
    const UTC_TIME: u8 = 0x17;
    let (_, validity, _) = element(after_issuer(certificate)?)?;
    let (_, _, end) = element(validity)?;
    let (tag, end, _) = element(end)?;
    let text = std::str::from_utf8(end).ok()?;
    let (year, rest) = if tag == UTC_TIME {
        let (year, rest) = text.split_at_checked(2)?;
        let century = if year < "50" { "20" } else { "19" };
        (format!("{century}{year}"), rest)
    } else {
        let (year, rest) = text.split_at_checked(4)?;
        (year.to_owned(), rest)
    };
    let part = |from: usize| rest.get(from..from + 2);
    parse_rfc3339(&format!(
        "{year}-{}-{}T{}:{}:{}{}",
        part(0)?,
        part(2)?,
        part(4)?,
        part(6)?,
        part(8)?,
        rest.get(10..)?
    ))
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
