//! One exhaustive match; then the nodes of a batch are served side by side.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use actor::{Lease, Work};
use futures_util::{StreamExt as _, stream};
use model::NodeName;
use wire::hub::{Frame, Upstream as Body};

use super::{NODES_MAX, RENEWALS_MAX, Upstream, UpstreamMessage};

/// How often leases are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl actix::Actor for Upstream {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK_EVERY, |this, _| {
            // When the mailbox is full the next second will do.
            let _ = this.peers.upstream.try_send(UpstreamMessage::RenewDue);
        });
    }
}

impl Handler<Lease<UpstreamMessage>> for Upstream {
    type Result = Work<Self>;

    fn handle(&mut self, lease: Lease<UpstreamMessage>, _: &mut Self::Context) -> Work<Self> {
        let now = self.now();
        let mut by_node: BTreeMap<NodeName, Vec<Frame<Body>>> = BTreeMap::new();
        for (_, message) in lease.iter() {
            match message {
                UpstreamMessage::FromEdge { node, frame, .. } => {
                    // Who speaks is connected, even if this incarnation did not see it connect.
                    self.leases.connected(node, now);
                    by_node.entry(node.clone()).or_default().push(frame.clone());
                }
                UpstreamMessage::NodeConnected { node } => {
                    if self.leases.connected(node, now) {
                        self.renew();
                    }
                }
                UpstreamMessage::NodeDisconnected { node } => self.leases.disconnected(node),
                UpstreamMessage::RenewDue => self.renew(),
                UpstreamMessage::Renewed { renewed, failed } => {
                    renewed.iter().for_each(|node| self.leases.ended(node, true, now));
                    failed.iter().for_each(|node| self.leases.ended(node, false, now));
                }
            }
        }
        self.scribe.known.set_nodes(self.leases.len());
        if by_node.is_empty() {
            lease.done();
            return Work::done();
        }
        let scribe = self.scribe.clone();
        let work = async move {
            let serve = |(node, frames)| {
                let scribe = &scribe;
                async move { scribe.serve(&node, frames).await }
            };
            let unanswered: Vec<Option<String>> = stream::iter(by_node).map(serve).buffer_unordered(NODES_MAX).collect().await;
            lease.done();
            unanswered.into_iter().flatten().next()
        };
        Work::new(work.into_actor(self).map(|unanswered, this, _| this.note(unanswered)))
    }
}

impl Upstream {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Says once that the API is away, and once that it is back.
    fn note(&mut self, unanswered: Option<String>) {
        match unanswered {
            Some(error) if !self.unavailable => {
                self.unavailable = true;
                log::warn!(error = error.as_str(); "API not available, reports stay unanswered and the edges repeat them");
            }
            None if self.unavailable => {
                self.unavailable = false;
                log::info!("API available again");
            }
            Some(_) | None => {}
        }
    }

    /// Renews the leases that are due, beside the mailbox.
    fn renew(&mut self) {
        let now = self.now();
        let due = self.leases.take_due(now);
        if due.is_empty() {
            return;
        }
        let (scribe, upstream) = (self.scribe.clone(), self.peers.upstream.clone());
        actix_rt::spawn(async move {
            let renew = |node: NodeName| {
                let scribe = &scribe;
                async move {
                    let result = scribe.renew(&node).await;
                    (node, result)
                }
            };
            let results: Vec<_> = stream::iter(due).map(renew).buffer_unordered(RENEWALS_MAX).collect().await;
            let (mut renewed, mut failed) = (Vec::new(), Vec::new());
            for (node, result) in results {
                match result {
                    Ok(()) => renewed.push(node),
                    Err(error) => {
                        log::debug!(node = node.as_str(), error = error.to_string().as_str(); "lease not renewed");
                        failed.push(node);
                    }
                }
            }
            // A mailbox that closes means that the process stops.
            let _ = upstream.send(UpstreamMessage::Renewed { renewed, failed }).await;
        });
    }
}
