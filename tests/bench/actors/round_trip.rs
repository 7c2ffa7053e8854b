//! Round trip: a question and its answer, one at a time.

use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message};
use actix_rt::{Arbiter, System};
use actor::{ChildSpec, Handle, Lease, Mail, Policy, Reply, Supervisor};
use tokio::sync::{mpsc, oneshot};

use super::{Contender, Threads, add_all, take_turns};
use crate::Outcome;
use crate::figures::Figures;

const CAPACITY: usize = 1024;

/// A number; the answer is the one after it.
#[derive(Message)]
#[rtype(result = "u64")]
struct Question(u64);

/// The same for a mailbox of ours.
struct Asked {
    number: u64,
    reply: Reply<u64>,
}
impl Mail for Asked {
    fn kind(&self) -> &'static str {
        "Asked"
    }
}

struct Answerer;
impl Actor for Answerer {
    type Context = Context<Self>;
}
impl Handler<Question> for Answerer {
    type Result = u64;
    fn handle(&mut self, Question(number): Question, _: &mut Self::Context) -> u64 {
        number + 1
    }
}
impl Handler<Lease<Asked>> for Answerer {
    type Result = ();
    fn handle(&mut self, lease: Lease<Asked>, _: &mut Self::Context) {
        lease.each(|_, asked| {
            asked.reply.send(asked.number + 1);
        });
    }
}

type Envelope = (u64, oneshot::Sender<u64>);

pub fn run(figures: &mut Figures, threads: Threads) -> Outcome {
    System::new().block_on(async {
        let arbiter = (threads == Threads::Two).then(Arbiter::new);
        let (tx, rx) = mpsc::channel(CAPACITY);
        let addr = match &arbiter {
            Some(arbiter) => {
                arbiter.spawn(answer(rx));
                Answerer::start_in_arbiter(&arbiter.handle(), |_| Answerer)
            }
            None => {
                actix_rt::spawn(answer(rx));
                Answerer.start()
            }
        };
        let handle = actor::mailbox("answerer", CAPACITY);
        let spec = ChildSpec::new(&handle, || Answerer);
        let spec = if threads == Threads::One { spec.here() } else { spec };
        let running = Supervisor::new("bench", Policy::default()).child(spec).start(|why| panic!("{why}"));

        let mut contenders = [
            Contender::new("tokio mpsc + oneshot", move |count| through_channel(tx.clone(), count)),
            Contender::new("actix send", move |count| send(addr.clone(), count)),
            Contender::new("skep ask", move |count| ask(handle.clone(), count)),
        ];
        take_turns(&mut contenders, if threads == Threads::One { 50_000 } else { 10_000 }).await?;
        add_all(figures, &format!("round trip, {}", threads.text()), &contenders, &["tokio mpsc + oneshot", "actix send"], None);
        running.shutdown().await;
        if let Some(arbiter) = arbiter {
            arbiter.stop();
        }
        Ok(())
    })
}

fn check(number: u64, answer: u64) -> Outcome {
    if answer == number + 1 { Ok(()) } else { Err(format!("{number} was answered by {answer}")) }
}

async fn answer(mut rx: mpsc::Receiver<Envelope>) {
    while let Some((number, reply)) = rx.recv().await {
        // An asker that went away wants no answer.
        let _ = reply.send(number + 1);
    }
}

async fn through_channel(tx: mpsc::Sender<Envelope>, count: u64) -> Outcome {
    for number in 0..count {
        let (reply, answer) = oneshot::channel();
        tx.send((number, reply)).await.map_err(|_| "the receiver is gone")?;
        check(number, answer.await.map_err(|_| "no answer")?)?;
    }
    Ok(())
}

async fn send(addr: Addr<Answerer>, count: u64) -> Outcome {
    for number in 0..count {
        check(number, addr.send(Question(number)).await.map_err(|error| error.to_string())?)?;
    }
    Ok(())
}

async fn ask(handle: Handle<Asked>, count: u64) -> Outcome {
    for number in 0..count {
        let answer = handle.ask(Duration::from_secs(5), |reply| Asked { number, reply }).await;
        check(number, answer.map_err(|error| error.to_string())?)?;
    }
    Ok(())
}
