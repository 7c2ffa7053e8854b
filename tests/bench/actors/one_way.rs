//! One way: how many messages a second reach the receiver, from one sender.

use std::collections::VecDeque;

use actix::{Actor, Addr, Context, Handler, Message};
use actix_rt::{Arbiter, System};
use actor::{ChildSpec, Handle, Lease, Mail, Policy, Supervisor};
use tokio::sync::mpsc;

use super::{Contender, Threads, add_all, take_turns};
use crate::Outcome;
use crate::figures::Figures;

/// Messages per run.
const COUNT: u64 = 300_000;
/// Capacity of every bounded queue.
const CAPACITY: usize = 1024;
/// Requests that a sender of plain actix leaves unanswered at most.
pub const WINDOW: usize = 512;

/// A number; 0 ends the run.
#[derive(Message)]
#[rtype(result = "()")]
struct Next(u64);

impl Mail for Next {
    fn kind(&self) -> &'static str {
        "Next"
    }
}

/// The receiver's work, the same behind every queue: the numbers must come as 1, 2, 3 …
struct Count {
    last: u64,
    in_order: bool,
    ends: mpsc::UnboundedSender<Result<u64, String>>,
}

impl Count {
    fn new(ends: mpsc::UnboundedSender<Result<u64, String>>) -> Self {
        Self { last: 0, in_order: true, ends }
    }

    fn take(&mut self, number: u64) {
        if number > 0 {
            self.in_order &= number == self.last + 1;
            self.last = number;
            return;
        }
        let result = if self.in_order { Ok(self.last) } else { Err("messages were lost, repeated or overtaken".to_owned()) };
        // Nobody listens only while the scenario ends.
        let _ = self.ends.send(result);
        (self.last, self.in_order) = (0, true);
    }
}

/// A receiver on plain actix.
struct Plain(Count);
impl Actor for Plain {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(CAPACITY);
    }
}
impl Handler<Next> for Plain {
    type Result = ();
    fn handle(&mut self, Next(number): Next, _: &mut Self::Context) {
        self.0.take(number);
    }
}

/// A supervised receiver.
struct Supervised {
    count: Count,
    /// Settles a batch as a whole, as actors with a transaction do.
    whole: bool,
}
impl Actor for Supervised {
    type Context = Context<Self>;
}
impl Handler<Lease<Next>> for Supervised {
    type Result = ();
    fn handle(&mut self, lease: Lease<Next>, _: &mut Self::Context) {
        if self.whole {
            lease.iter().for_each(|(_, Next(number))| self.count.take(*number));
            lease.done();
        } else {
            lease.each(|_, Next(number)| self.count.take(*number));
        }
    }
}

pub fn run(figures: &mut Figures, threads: Threads) -> Outcome {
    System::new().block_on(async {
        let (ends, results) = mpsc::unbounded_channel();
        let results = std::rc::Rc::new(tokio::sync::Mutex::new(results));
        let finish = move || {
            let results = results.clone();
            async move {
                match results.lock().await.recv().await {
                    Some(Ok(COUNT)) => Ok(()),
                    Some(Ok(other)) => Err(format!("{other} of {COUNT} messages arrived")),
                    Some(Err(why)) => Err(why),
                    None => Err("the receiver is gone".to_owned()),
                }
            }
        };
        let arbiter = (threads == Threads::Two).then(Arbiter::new);

        let (tx, rx) = mpsc::channel(CAPACITY);
        let receive = receive(rx, Count::new(ends.clone()));
        match &arbiter {
            Some(arbiter) => drop(arbiter.spawn(receive)),
            None => drop(actix_rt::spawn(receive)),
        }
        let plain = || {
            let count = Count::new(ends.clone());
            match &arbiter {
                Some(arbiter) => Plain::start_in_arbiter(&arbiter.handle(), |_| Plain(count)),
                None => Plain(count).start(),
            }
        };
        let (unbounded, windowed) = (plain(), plain());
        let (single, batched) = (actor::mailbox("single", CAPACITY), actor::mailbox("batched", CAPACITY));
        let child = |handle: &Handle<Next>, batch: usize| {
            let ends = ends.clone();
            let spec = ChildSpec::new(handle, move || Supervised { count: Count::new(ends.clone()), whole: batch > 1 }).batch(batch);
            if threads == Threads::One { spec.here() } else { spec }
        };
        let (first, second) = (child(&single, 1), child(&batched, 512));
        let running = Supervisor::new("bench", Policy::default()).child(first).child(second).start(|why| panic!("{why}"));

        let mut contenders = [
            Contender::new("tokio mpsc", {
                let finish = finish.clone();
                move |count| then(through_channel(tx.clone(), count), finish())
            }),
            Contender::new("actix do_send", {
                let finish = finish.clone();
                move |count| then(do_send(unbounded.clone(), count), finish())
            }),
            Contender::new("actix send", {
                let finish = finish.clone();
                move |count| then(send(windowed.clone(), count), finish())
            }),
            Contender::new("skep send, batch 1", {
                let finish = finish.clone();
                move |count| then(through_mailbox(single.clone(), count), finish())
            }),
            Contender::new("skep send, batch 512", move |count| then(through_mailbox(batched.clone(), count), finish())),
        ];
        take_turns(&mut contenders, COUNT).await?;
        let title = format!("one way, {}", threads.text());
        let wanted = if threads == Threads::One { 0.6 } else { 1.0 };
        add_all(figures, &title, &contenders, &["tokio mpsc", "actix do_send", "actix send"], Some(("actix do_send", wanted)));
        running.shutdown().await;
        if let Some(arbiter) = arbiter {
            arbiter.stop();
        }
        Ok(())
    })
}

async fn then(send: impl Future<Output = Outcome>, finish: impl Future<Output = Outcome>) -> Outcome {
    send.await?;
    finish.await
}

/// 1, 2, … `count`, 0.
fn numbers(count: u64) -> impl Iterator<Item = Next> {
    (1..=count).chain([0]).map(Next)
}

async fn receive(mut rx: mpsc::Receiver<Next>, mut count: Count) {
    while let Some(Next(number)) = rx.recv().await {
        count.take(number);
    }
}

async fn through_channel(tx: mpsc::Sender<Next>, count: u64) -> Outcome {
    for next in numbers(count) {
        tx.send(next).await.map_err(|_| "the receiver is gone")?;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "it is what is measured")]
async fn do_send(addr: Addr<Plain>, count: u64) -> Outcome {
    for next in numbers(count) {
        addr.do_send(next);
    }
    Ok(())
}

/// Each request is answered, so this pays for a oneshot channel per message: the only bounded way that plain actix has.
async fn send(addr: Addr<Plain>, count: u64) -> Outcome {
    let mut unanswered: VecDeque<actix::dev::Request<Plain, Next>> = VecDeque::with_capacity(WINDOW);
    for next in numbers(count) {
        if unanswered.len() == WINDOW
            && let Some(oldest) = unanswered.pop_front()
        {
            oldest.await.map_err(|error| error.to_string())?;
        }
        unanswered.push_back(addr.send(next));
    }
    for request in unanswered {
        request.await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn through_mailbox(handle: Handle<Next>, count: u64) -> Outcome {
    for next in numbers(count) {
        handle.send(next).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}
