//! What the operator makes for a signer on another machine: the macaroon, and a new certificate.
//!
//! The files are changed first, then a running daemon is told to take them; with none running, it takes them when it starts.

use super::args::{BakeArguments, GatewayArguments, RenewArguments};
use super::client::Client;
use super::failure::{Exit, Failure};
use super::gateway::{Credentials, Files, date, unix_now};
use super::output::Output;
use super::{settings, span};
use crate::admin::hex;
use crate::signer::gateway::{Caveat, Macaroon, Op, RootKey, TlsIdentity, write_private};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
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
    let mut credentials = Files::of(&dir).load_or_generate(&gateway.hosts)?;
    if arguments.rotate_root_key {
        credentials.root_key = RootKey::rotate(&credentials.files.root_key)?;
        credentials.made = true;
    }
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| {
        Failure::failed(
            format!("the system gives no random bytes: {error}"),
            "this process",
            "try again",
        )
    })?;
    let mut macaroon = Macaroon::bake(&credentials.root_key, nonce, &[Op::remote_signer()]);
    let caveats = [
        expires.map(Caveat::TimeBefore),
        arguments.ip.map(Caveat::IpAddr),
    ];
    for caveat in caveats.iter().flatten() {
        macaroon
            .restrict(caveat)
            .map_err(|error| Failure::failed(error.to_string(), "the macaroon", "report it"))?;
    }
    let client = Client::new(dir);
    let told = if credentials.made {
        tell(&client)?
    } else {
        door(&client)?
    };
    save(&out, &macaroon.to_bytes(), arguments.force)?;
    let baked = Baked {
        out: &out,
        name: macaroon.name().to_string(),
        expires,
        arguments,
        credentials: &credentials,
        connect: connect(&gateway.hosts, gateway.listen, told.as_ref()),
        daemon: told.is_some(),
    };
    output.answer(&baked.json(), |_| baked.text());
    Ok(Exit::Ok)
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
        format!(
            "macaroon     {} ({}; {end}{from})\ncertificate  {}{rotated}\n\nCopy these two files to the signer's machine, next to the node's key. Who has the macaroon and the key is the signer. Start it there:\n  {}",
            self.out.display(),
            self.name,
            self.certificate().display(),
            self.agent()
        )
    }
}

/// `pilotlight signer renew-certificate`.
pub(super) fn renew(
    data_dir: Option<PathBuf>,
    arguments: RenewArguments,
    output: &Output,
) -> Result<Exit, Failure> {
    let given = GatewayArguments {
        signer_listen: None,
        signer_host: arguments.host,
    };
    let (dir, gateway) = settings::of_gateway(data_dir, arguments.config.as_deref(), &given)?;
    dir.prepare()?;
    let files = Files::of(&dir);
    let client = Client::new(dir);
    let mut hosts = gateway.hosts;
    if hosts.is_empty()
        && let Some(door) = door(&client)?
    {
        hosts = strings(&door, "/hosts");
    }
    let identity = TlsIdentity::renew(&files.tls, &hosts, unix_now())?;
    // A daemon that starts on this directory needs both.
    RootKey::load_or_generate(&files.root_key)?;
    let daemon = tell(&client)?.is_some();
    let digest = hex(&identity.certificate_digest());
    let path = files.tls.certificate.display().to_string();
    let value = json!({
        "certificate": path, "sha256": digest, "expires": identity.expires().as_secs(), "hosts": hosts,
        "daemon_runs": daemon,
    });
    output.answer(&value, |_| {
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let names = [names.as_slice(), &hosts].concat().join(", ");
        let taken = if daemon {
            "The running daemon shows it from now on; a signer that is attached stays."
        } else {
            "The daemon shows it when it starts."
        };
        format!(
            "certificate  {path}\nnames        {names}\nexpires      {}\nsha256       {digest}\n\n{taken}\nCopy the file to the signer's machine: with the old one it cannot attach again.",
            date(identity.expires())
        )
    });
    Ok(Exit::Ok)
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

/// Writes the macaroon, 0600 from the moment it exists.
fn save(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    if force {
        return Ok(write_private(path, bytes)?);
    }
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::usage(
            format!("cannot write {}: {error}", path.display()),
            path.display().to_string(),
            "give a file in a directory that this user may write to with --out",
        ),
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|error| {
            // Half a macaroon is worse than none; this process made the file just now.
            let _ = std::fs::remove_file(path);
            failed(error)
        })
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
