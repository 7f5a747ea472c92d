//! What a handle asks of the supervisor's driver. Plain data.

use super::{ConnectError, PeerSpec, PeerView, Pending, RosterError, Urgency};
use crate::link::{LinkHandle, Tag};
use crate::node_id::NodeId;
use tokio::sync::oneshot;

/// Where somebody waits for a link.
pub(super) type LinkWaiter = oneshot::Sender<Result<LinkHandle, ConnectError>>;

/// What the node asks of the supervisor.
pub(crate) enum Command {
    Want {
        spec: PeerSpec,
        done: LinkWaiter,
    },
    Add {
        spec: PeerSpec,
        done: oneshot::Sender<Result<(), RosterError>>,
    },
    Unwant {
        peer: NodeId,
        done: oneshot::Sender<bool>,
    },
    Tag {
        peer: NodeId,
        tag: Tag,
        done: oneshot::Sender<()>,
    },
    Declare {
        peers: Vec<NodeId>,
        done: oneshot::Sender<()>,
    },
    Urgency {
        peer: NodeId,
        urgency: Urgency,
        done: oneshot::Sender<Result<(), RosterError>>,
    },
    Height {
        height: u32,
        done: oneshot::Sender<()>,
    },
    Pending {
        found: oneshot::Sender<Pending>,
    },
    Link {
        peer: NodeId,
        found: oneshot::Sender<Option<LinkHandle>>,
    },
    Peers {
        found: oneshot::Sender<Vec<PeerView>>,
    },
    Drain {
        done: oneshot::Sender<()>,
    },
}
