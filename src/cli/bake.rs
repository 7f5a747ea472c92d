//! What the operator makes for a signer on another machine: the macaroon, and a new certificate.
//!
//! The files are changed first, then a running daemon is told to take them; with none running, it takes them when it starts.

use super::args::{BakeArguments, GatewayArguments, RenewArguments};
use super::client::Client;
use super::failure::{Exit, Failure};
use super::gateway::{Credentials, Files, date, unix_now};
use super::output::Output;
use super::{settings, span};
use crate::hex;
use crate::private;
use crate::signer::gateway::{Caveat, Macaroon, Op, RootKey, TlsIdentity};
use serde_json::{Value, json};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `pilotlight bake`.
pub(super) fn bake(
    data_dir: Option<PathBuf>,
    arguments: &BakeArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let expires = arguments.expires.as_deref();
    let expires = expires.map(|text| end_of(text, "--expires")).transpose()?;
    let (dir, gateway) =
        settings::of_gateway(data_dir, arguments.config.as_deref(), &arguments.gateway)?;
    dir.prepare()?;
    let out = arguments.out.clone();
    let out = out.unwrap_or_else(|| dir.file("signer.macaroon"));
    // Before anything is rotated.
    if !arguments.force && out.symlink_metadata().is_ok() {
        return Err(exists(&out));
    }
    let files = Files::of(&dir);
    let lock = files.lock()?;
    let mut credentials = files.load_or_generate(&lock, &gateway.hosts)?;
    if arguments.rotate_root_key {
        credentials.root_key = credentials.root_key.successor()?;
    }
    let macaroon = restricted(&credentials.root_key, expires, arguments.ip)?;
    let draft = Draft::write(&out, &macaroon.to_bytes())?;
    // The macaroon is on the disk: only now is what was good before made worthless.
    if arguments.rotate_root_key {
        credentials.root_key.save(&credentials.files.root_key)?;
    }
    let rotated = |failure| after_rotation(failure, arguments.rotate_root_key, &out);
    draft.publish(arguments.force).map_err(rotated)?;
    drop(lock);
    let client = Client::new(dir);
    let told = if credentials.made || arguments.rotate_root_key {
        tell(&client)
    } else {
        door(&client)
    };
    let told = told.map_err(|mut failure| {
        let said = &mut failure.problem.what;
        *said = format!("the macaroon is in {}, but {said}", out.display());
        after_rotation(failure, arguments.rotate_root_key, &out)
    })?;
    let baked = Baked {
        out: &out,
        name: macaroon.name().to_string(),
        expires,
        arguments,
        credentials: &credentials,
        connect: connect(&gateway.hosts, gateway.listen, told.as_ref()),
        daemon: told.is_some(),
        warnings: credentials
            .files
            .remarks(&credentials.identity, &gateway.hosts),
    };
    output.answer(&baked.json(), |_| baked.text());
    Ok(Exit::Ok)
}

/// Says with an error that comes after the rotation that there was one.
fn after_rotation(mut failure: Failure, rotated: bool, out: &Path) -> Failure {
    if rotated {
        let problem = &mut failure.problem;
        problem.what = format!(
            "the root key is another now, and every earlier macaroon worth nothing; {}",
            problem.what
        );
        if !out.exists() {
            problem.what_to_do = format!("{}; then bake a macaroon anew", problem.what_to_do);
        }
    }
    failure
}

/// A macaroon for a signer, good until `expires` and from `ip` only, if these are given.
fn restricted(
    root_key: &RootKey,
    expires: Option<Duration>,
    ip: Option<IpAddr>,
) -> Result<Macaroon, Failure> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| {
        Failure::failed(
            format!("the system gives no random bytes: {error}"),
            "this process",
            "try again",
        )
    })?;
    let mut macaroon = Macaroon::bake(root_key, nonce, &[Op::remote_signer()]);
    let caveats = [expires.map(Caveat::TimeBefore), ip.map(Caveat::IpAddr)];
    for caveat in caveats.iter().flatten() {
        macaroon
            .restrict(caveat)
            .map_err(|error| Failure::failed(error.to_string(), "the macaroon", "report it"))?;
    }
    Ok(macaroon)
}

/// What is said of a macaroon that was baked.
struct Baked<'a> {
    out: &'a Path,
    name: String,
    expires: Option<Duration>,
    arguments: &'a BakeArguments,
    credentials: &'a Credentials,
    connect: String,
    daemon: bool,
    warnings: Vec<String>,
}

impl Baked<'_> {
    fn certificate(&self) -> &Path {
        &self.credentials.files.tls.certificate
    }

    fn agent(&self) -> String {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        format!(
            "pilotlight agent --connect {} --key node.key --certificate {} --macaroon {}",
            self.connect,
            name(self.certificate()),
            name(self.out)
        )
    }

    fn json(&self) -> Value {
        json!({
            "macaroon": self.out.display().to_string(),
            "name": self.name,
            "expires": self.expires.map(|end| end.as_secs()),
            "ip": self.arguments.ip.map(|ip| ip.to_string()),
            "root_key": self.credentials.root_key.id(),
            "root_key_rotated": self.arguments.rotate_root_key,
            "certificate": self.certificate().display().to_string(),
            "agent": self.agent(),
            "daemon_runs": self.daemon,
            "warnings": self.warnings,
        })
    }

    fn text(&self) -> String {
        let end = self.expires.map_or_else(
            || "good until the root key is rotated".to_owned(),
            |end| format!("good until {}", date(end)),
        );
        let from = self
            .arguments
            .ip
            .map_or_else(String::new, |ip| format!(", from {ip} only"));
        let rotated = match (self.arguments.rotate_root_key, self.daemon) {
            (false, _) => String::new(),
            (true, true) => {
                "\nThe root key is another: every earlier macaroon is worth nothing, and the running daemon knows.".to_owned()
            }
            (true, false) => {
                "\nThe root key is another: every earlier macaroon is worth nothing.".to_owned()
            }
        };
        let warnings = [&[String::new()], self.warnings.as_slice()].concat();
        let warnings = warnings.join("\nwarning      ");
        format!(
            "macaroon     {} ({}; {end}{from})\ncertificate  {}{warnings}{rotated}\n\nCopy these two files to the signer's machine, next to the node's key. Who has the macaroon and the key is the signer. Start it there:\n  {}",
            self.out.display(),
            self.name,
            self.certificate().display(),
            self.agent()
        )
    }
}

/// `pilotlight signer renew-certificate`.
pub(super) fn renew(
    data_dir: Option<&Path>,
    arguments: RenewArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let RenewArguments {
        host,
        signer_listen,
        drop_other_names,
        config,
    } = arguments;
    let settings = |signer_host| {
        let given = GatewayArguments {
            signer_listen,
            signer_host,
        };
        settings::of_gateway(data_dir.map(Path::to_owned), config.as_deref(), &given)
    };
    // What is given stands beside what is configured, not in its place.
    let (dir, configured) = settings(Vec::new())?;
    let given = settings(host)?.1.hosts;
    dir.prepare()?;
    let files = Files::of(&dir);
    let client = Client::new(dir);
    let running = door(&client)?;
    let lock = files.lock()?;
    let before = files.tls.hosts();
    let mut hosts = configured.hosts;
    let running = running.map(|door| strings(&door, "/hosts"));
    add(&mut hosts, running.unwrap_or_default());
    if !drop_other_names {
        add(&mut hosts, before.clone());
    }
    add(&mut hosts, given);
    let mut dropped = before;
    dropped.retain(|host| !hosts.contains(host));
    let identity = TlsIdentity::renew(&files.tls, &hosts, unix_now())?;
    // A daemon that starts on this directory needs both.
    RootKey::load_or_generate(&files.root_key)?;
    drop(lock);
    let daemon = tell(&client)?.is_some();
    let digest = hex::encode(&identity.certificate_digest()).to_string();
    let path = files.tls.certificate.display().to_string();
    let value = json!({
        "certificate": path, "sha256": digest, "expires": identity.expires().as_secs(), "hosts": hosts,
        "dropped_hosts": dropped, "daemon_runs": daemon,
    });
    output.answer(&value, |_| {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let names = [names.as_slice(), &hosts].concat().join(", ");
        let dropped = if dropped.is_empty() {
            String::new()
        } else {
            format!(
                "\nno more      {}: a signer that checks names, as lnd's does, cannot dial these",
                dropped.join(", ")
            )
        };
        let taken = if daemon {
            "The running daemon shows it from now on; a signer that is attached stays."
        } else {
            "The daemon shows it when it starts."
        };
        format!(
            "certificate  {path}\nnames        {names}{dropped}\nexpires      {}\nsha256       {digest}\n\n{taken}\nCopy the file to the signer's machine: with the old one it cannot attach again.",
            date(identity.expires())
        )
    });
    Ok(Exit::Ok)
}

/// Those of `more` that are not there yet.
fn add(hosts: &mut Vec<String>, more: Vec<String>) {
    for host in more {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
}

fn end_of(text: &str, place: &str) -> Result<Duration, Failure> {
    let span = span::parse(text, place)?;
    if span.is_zero() {
        return Err(Failure::usage(
            "a macaroon that is good for no time is good for nothing",
            place,
            "give a longer time, or leave it out",
        ));
    }
    let end = unix_now().saturating_add(span);
    // Whole seconds: lnd's parser takes fractions, people do not.
    Ok(Duration::from_secs(end.as_secs().saturating_add(1)))
}

/// The door of the running daemon; `None` when none runs, or no signer dials in there.
fn door(client: &Client) -> Result<Option<Value>, Failure> {
    match client.get("/v1/info") {
        Ok(info) => Ok(info
            .get("signer")
            .filter(|signer| signer.get("listen").is_some())
            .cloned()),
        Err(failure) if failure.exit == Exit::NoDaemon => Ok(None),
        Err(failure) => Err(untold(failure)),
    }
}

/// Has the running daemon take its credentials anew; its door, if there is one.
fn tell(client: &Client) -> Result<Option<Value>, Failure> {
    match door(client)? {
        Some(_) => client
            .change("POST", "/v1/signer/reload", None)
            .map(Some)
            .map_err(untold),
        None => Ok(None),
    }
}

/// The files have changed, or may have, and the daemon does not know.
fn untold(mut failure: Failure) -> Failure {
    let problem = &mut failure.problem;
    problem.what = format!("the running daemon could not be asked: {}", problem.what);
    problem.what_to_do = format!(
        "{}; then run the command again, or start the daemon again: it reads its files then",
        problem.what_to_do
    );
    failure
}

fn strings(value: &Value, path: &str) -> Vec<String> {
    let items = value.pointer(path).and_then(Value::as_array);
    let items = items.into_iter().flatten().filter_map(Value::as_str);
    items.map(str::to_owned).collect()
}

/// Where the agent should dial: the running daemon knows best, then the first host, then the address if it is one machine's.
fn connect(hosts: &[String], listen: SocketAddr, door: Option<&Value>) -> String {
    let told = door.and_then(|door| door.get("listen")?.as_str()?.parse().ok());
    let listen: SocketAddr = told.unwrap_or(listen);
    let told = door.map(|door| strings(door, "/hosts")).unwrap_or_default();
    let host = match hosts.first().or(told.first()) {
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host.clone(),
        None if listen.ip().is_unspecified() => "HOST".to_owned(),
        None => return listen.to_string(),
    };
    format!("{host}:{}", listen.port())
}

fn exists(path: &Path) -> Failure {
    Failure::usage(
        format!("{} exists and is not written over", path.display()),
        path.display().to_string(),
        "write over it with --force, or give another file with --out",
    )
}

/// A macaroon that is written, 0600, and does not have its name yet. It is gone when it is dropped.
struct Draft<'a> {
    path: PathBuf,
    out: &'a Path,
}

impl<'a> Draft<'a> {
    fn write(out: &'a Path, bytes: &[u8]) -> Result<Self, Failure> {
        let mut name = out.file_name().unwrap_or_default().to_os_string();
        name.push(".draft");
        let path = out.with_file_name(name);
        // Who has the lock is alone: it is left over from a process that died.
        let _ = std::fs::remove_file(&path);
        private::make(&path, bytes).map_err(|error| unwritable(out, &error))?;
        Ok(Self { path, out })
    }

    /// Gives it its name; in the place of what has it only if that is wanted.
    fn publish(self, force: bool) -> Result<(), Failure> {
        let (from, out) = (&self.path, self.out);
        let published = if force {
            std::fs::rename(from, out)
        } else {
            std::fs::hard_link(from, out)
        };
        published.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(out),
            _ => unwritable(out, &error),
        })
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // It is gone already if it was renamed.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn unwritable(out: &Path, error: &io::Error) -> Failure {
    Failure::usage(
        format!("cannot write {}: {error}", out.display()),
        out.display().to_string(),
        "give a file in a directory that this user may write to with --out",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_agent_is_told_where_to_dial() {
        let hosts = |list: &[&str]| {
            list.iter()
                .map(|host| (*host).to_owned())
                .collect::<Vec<_>>()
        };
        let (loopback, all) = (
            "127.0.0.1:9740".parse().unwrap(),
            "0.0.0.0:9740".parse().unwrap(),
        );
        assert_eq!(connect(&[], loopback, None), "127.0.0.1:9740");
        assert_eq!(connect(&[], all, None), "HOST:9740");
        assert_eq!(connect(&hosts(&["n.lan", "x"]), all, None), "n.lan:9740");
        assert_eq!(
            connect(&hosts(&["2001:db8::1"]), all, None),
            "[2001:db8::1]:9740"
        );
        let door = json!({ "listen": "0.0.0.0:1234", "hosts": ["m.lan"] });
        assert_eq!(connect(&[], loopback, Some(&door)), "m.lan:1234");
    }
}
