//! The daemon's gateway: its files in the data directory, its face to the operator, and what is to be said of its certificate.
//!
//! It never renews or rotates anything by itself: that would lock the signer out until it has the new files.

use super::failure::Failure;
use super::settings::GatewaySettings;
use crate::admin::{Caller, DataDir, DoorView, Problem, SignerDoor};
use crate::clock::Clock;
use crate::limits;
use crate::private::Lock;
use crate::signer::SignerContext;
use crate::signer::gateway::{
    Caveat, CredentialsError, Gateway, GatewayConfig, GatewayError, RootKey, TlsFiles, TlsIdentity,
};
use crate::supervisor::Supervisor;
use crate::telemetry::Telemetry;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A certificate that ends within this time is spoken of: long enough to plan a visit to the signer's machine.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * 86_400);

/// How often a running daemon looks at its certificate's end.
const LOOK_AGAIN: Duration = Duration::from_secs(86_400);

/// Where a gateway's credentials are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) tls: TlsFiles,
    pub(super) root_key: PathBuf,
    directory: PathBuf,
}

/// What a gateway starts with.
pub(super) struct Credentials {
    pub(super) files: Files,
    pub(super) identity: TlsIdentity,
    pub(super) root_key: RootKey,
    /// Whether any of it has just been made.
    pub(super) made: bool,
}

impl Files {
    pub(super) fn of(dir: &DataDir) -> Self {
        Self {
            tls: TlsFiles::in_directory(dir.path()),
            root_key: dir.file("macaroon.root"),
            directory: dir.path().to_owned(),
        }
    }

    /// Whoever has it may read and change these files; nobody else does meanwhile. Who waits for it in vain is told so.
    pub(super) fn lock(&self) -> Result<Lock, Failure> {
        let path = self.directory.join("credentials.lock");
        let place = || path.display().to_string();
        let failed = |error: std::io::Error| {
            Failure::usage(
                format!("cannot lock {}: {error}", path.display()),
                place(),
                "let the user that runs this own the data directory",
            )
        };
        let locked = Lock::within(&path, limits::CREDENTIALS_LOCK_WAIT).map_err(failed)?;
        locked.ok_or_else(|| {
            Failure::failed(
                "another process has held the credentials for too long",
                place(),
                "wait for it, or end it: it is a `pilotlight` that works on this data directory",
            )
        })
    }

    /// What there is; what there is not is made. Needs the lock.
    pub(super) fn load_or_generate(
        self,
        _: &Lock,
        hosts: &[String],
    ) -> Result<Credentials, Failure> {
        let (identity, certificate_made) =
            TlsIdentity::load_or_generate(&self.tls, hosts, unix_now())
                .map_err(|error| self.failure(error, hosts))?;
        let (root_key, key_made) = RootKey::load_or_generate(&self.root_key)?;
        Ok(Credentials {
            files: self,
            identity,
            root_key,
            made: certificate_made || key_made,
        })
    }

    fn load(&self, hosts: &[String]) -> Result<(TlsIdentity, RootKey), Failure> {
        let _lock = self.lock()?;
        Ok((
            TlsIdentity::load(&self.tls).map_err(|error| self.failure(error, hosts))?,
            RootKey::load(&self.root_key)?,
        ))
    }

    /// An error of the files, with the whole command that mends it.
    fn failure(&self, error: CredentialsError, hosts: &[String]) -> Failure {
        let torn = matches!(error, CredentialsError::Mismatch { .. });
        let mut failure = Failure::from(error);
        if torn {
            failure.problem.what_to_do = format!(
                "run {}, then give the signer the new {}",
                self.renewal(hosts),
                self.tls.certificate.display()
            );
        }
        failure
    }

    /// The command that makes a new certificate with these names.
    fn renewal(&self, hosts: &[String]) -> String {
        let mut renew = format!(
            "`pilotlight signer renew-certificate --data-dir {}",
            self.directory.display()
        );
        for host in hosts {
            // Writing to a string does not fail.
            let _ = write!(renew, " --host {host}");
        }
        renew.push('`');
        renew
    }

    /// What the operator should know of a certificate that signers dial under these hosts.
    pub(super) fn remarks(&self, identity: &TlsIdentity, hosts: &[String]) -> Vec<String> {
        let renew = self.renewal(hosts);
        let missing: Vec<&str> = hosts
            .iter()
            .map(String::as_str)
            .filter(|host| !identity.covers(host))
            .collect();
        let mut remarks = Vec::new();
        if !missing.is_empty() {
            remarks.push(format!(
                "the signer's certificate does not name {}: a signer that checks names, as lnd's does, cannot dial it; run {renew}, then give the signer the new {}",
                missing.join(", "),
                self.tls.certificate.display()
            ));
        }
        let (end, now) = (identity.expires(), unix_now());
        if end <= now.saturating_add(EXPIRES_SOON) {
            let verb = if end <= now { "expired" } else { "expires" };
            remarks.push(format!(
                "the signer's certificate {verb} on {}; run {renew}, then give the signer the new {}",
                date(end),
                self.tls.certificate.display()
            ));
        }
        remarks
    }
}

/// A gateway that runs, and its files.
pub(super) struct Door {
    gateway: Gateway,
    files: Files,
    hosts: Vec<String>,
    shown: Mutex<Shown>,
    /// One reload at a time: what was read later counts.
    reloading: Mutex<()>,
    telemetry: Telemetry,
}

/// What it shows and asks for at the moment.
struct Shown {
    identity: TlsIdentity,
    root_key: u64,
}

impl Door {
    /// Listens. Waits for no signer.
    pub(super) async fn open(
        credentials: Credentials,
        settings: &GatewaySettings,
        context: SignerContext,
        supervisor: &Supervisor,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, Failure> {
        let Credentials {
            files,
            identity,
            root_key,
            ..
        } = credentials;
        let shown = Shown {
            identity: identity.clone(),
            root_key: root_key.id(),
        };
        let config = GatewayConfig {
            listen: settings.listen,
            identity,
            root_key,
            liveness_window: settings.liveness_window,
        };
        let gateway = Gateway::start(config, context, supervisor.telemetry(), clock)
            .await
            .map_err(|error| not_listening(&error))?;
        let door = Arc::new(Self {
            gateway,
            files,
            hosts: settings.hosts.clone(),
            shown: Mutex::new(shown),
            reloading: Mutex::new(()),
            telemetry: supervisor.telemetry(),
        });
        tokio::spawn(watch_certificate(Arc::downgrade(&door)));
        Ok(door)
    }

    /// What is to be said of its certificate.
    pub(super) fn remarks(&self) -> Vec<String> {
        let identity = self.shown().identity.clone();
        self.files.remarks(&identity, &self.hosts)
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignerDoor for Door {
    fn view(&self) -> DoorView {
        let attached = self.gateway.attached().map(|signer| Caller {
            address: signer.address,
            macaroon: signer.macaroon.to_string(),
            software: if signer.is_agent { "pilotlight" } else { "lnd" },
        });
        let shown = self.shown();
        DoorView {
            listen: self.gateway.local_addr(),
            hosts: self.hosts.clone(),
            behind: self.gateway.is_behind(),
            certificate_sha256: shown.identity.certificate_digest(),
            certificate_expires: shown.identity.expires(),
            root_key: shown.root_key,
            attached,
            last_refusal: self.telemetry.last_refusal(),
        }
    }

    fn reload(&self) -> Result<DoorView, Problem> {
        let one_at_a_time = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Both are read before either counts, and before anything is locked that `view` must not wait for.
        let read = self.files.load(&self.hosts);
        let (identity, root_key) = read.map_err(|failure| failure.problem)?;
        let mut shown = self.shown();
        shown.root_key = root_key.id();
        self.gateway.rotate(root_key);
        if shown.identity.certificate_digest() != identity.certificate_digest() {
            shown.identity = identity.clone();
            self.gateway.renew(identity);
        }
        drop(shown);
        drop(one_at_a_time);
        tracing::info!("the gateway has taken its credentials anew from their files");
        Ok(self.view())
    }
}

/// Says every day what is to be said, as long as the door is there.
async fn watch_certificate(door: Weak<Door>) {
    loop {
        let Some(there) = door.upgrade() else { return };
        for remark in there.remarks() {
            tracing::warn!("{remark}");
        }
        drop(there);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn not_listening(error: &GatewayError) -> Failure {
    match error {
        GatewayError::Listen { address, .. } => Failure::failed(
            error.to_string(),
            format!("--signer-listen {address}"),
            "stop whatever has the port, or give another address (port 0: any free one)",
        ),
    }
}

/// Time since the Unix epoch.
pub(super) fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A moment in UTC, to the second.
pub(super) fn date(at: Duration) -> String {
    let caveat = Caveat::TimeBefore(Duration::from_secs(at.as_secs())).to_string();
    caveat
        .strip_prefix("time-before ")
        .unwrap_or(&caveat)
        .to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_or_lacks_a_host_is_spoken_of_with_the_command_that_renews_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(&DataDir::at(folder.path()));
        let hosts = ["node.lan".to_owned(), "192.0.2.7".to_owned()];
        let made = |age: u64| {
            let then = unix_now().saturating_sub(Duration::from_secs(age * 86_400));
            TlsIdentity::renew(&files.tls, &hosts, then).unwrap()
        };
        let fresh = made(0);
        assert_eq!(files.remarks(&fresh, &hosts), Vec::<String>::new());
        let more = [hosts.as_slice(), &["other.lan".to_owned()]].concat();
        let said = files.remarks(&fresh, &more).remove(0);
        assert!(said.contains("does not name other.lan:"), "{said}");
        let command = " --host node.lan --host 192.0.2.7 --host other.lan`";
        assert!(said.contains(command), "{said}");
        // It is good for 420 days.
        assert!(files.remarks(&made(389), &hosts).is_empty());
        assert!(files.remarks(&made(391), &hosts)[0].contains("certificate expires on 2"));
        assert!(files.remarks(&made(421), &hosts)[0].contains("certificate expired on 2"));
    }

    #[test]
    fn a_moment_is_written_to_the_second() {
        assert_eq!(
            date(Duration::from_millis(1_900_000_000_999)),
            "2030-03-17T17:46:40Z"
        );
    }
}
