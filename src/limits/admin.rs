//! Of the admin address and the data directory.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// How long a daemon that starts waits for its data directory: a command that asks whether one runs holds the lock for microseconds.
pub const DATA_DIR_LOCK_WAIT: Duration = Duration::from_millis(100);

/// How long a command waits for the credentials of a gateway: who works on them is done in a blink; after this time it hangs.
pub const CREDENTIALS_LOCK_WAIT: Duration = Duration::from_secs(10);

/// Connections to the admin address at once. A scraper, a page and a few commands need ten; when all are taken, a newcomer takes the
/// place of the one that has asked for nothing for the longest. None of them costs a link anything.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Of those, event streams: they are for ever, and must leave room for the command that ends the trouble.
pub const ADMIN_EVENT_STREAMS: usize = 32;

/// How long a newcomer waits for the place of a connection that was told to leave, before another is told. It leaves as soon as its
/// task runs.
pub const ADMIN_PLACE_WAIT: Duration = Duration::from_millis(20);

/// Bytes that the kernel holds for an admin client that does not read: a few thousand events. Left to itself it holds 4 MiB each.
pub const ADMIN_SEND_BUFFER: usize = 256 * 1024;

/// How long an admin client may take for a request's head, and how long it may be idle between two. It is on the same machine or
/// in the same rack.
pub const ADMIN_HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Bytes of a request's head. hyper's least is 8 KiB; a token takes 64 bytes.
pub const ADMIN_HEAD_MAX: usize = 16 * 1024;

/// Bytes of a request's body. A peer takes 200.
pub const ADMIN_BODY_MAX: usize = 16 * 1024;

/// How long an admin request may take, the resolving of a name and the teardown after a lapse included.
pub const ADMIN_REQUEST_DEADLINE: Duration = Duration::from_secs(15);

/// Events that wait for one listener at the admin address, in front of [`EVENTS_BUFFER`](super::EVENTS_BUFFER): what one write may carry.
pub const ADMIN_EVENTS: usize = 16;

/// How long the admin address waits at its end for answers that are on their way. They are short; a client that reads nothing is not
/// worth more of a shutdown.
pub const ADMIN_FAREWELL: Duration = Duration::from_secs(1);

/// How often a quiet event stream shows that it is alive. Proxies give up after 30 s and more.
pub const ADMIN_EVENTS_KEEPALIVE: Duration = Duration::from_secs(15);

/// How long a listener at the admin address may take nothing before it is said to be behind. Under [`ADMIN_STALL`], after which it is gone.
pub const ADMIN_EVENTS_BEHIND: Duration = Duration::from_secs(10);

/// How often it is said at most that a listener is behind, over all of them: what is said makes a slow one still slower.
pub const LISTENER_BEHIND_INTERVAL: Duration = Duration::from_secs(60);

/// Longest admin connection that takes nothing of what is written to it, before the kernel gives it up.
pub const ADMIN_STALL: Duration = Duration::from_secs(30);
