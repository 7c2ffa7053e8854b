//! Each operation of beehive (manual ch. 6.3, 6.5, 6.6) has a typed counterpart that keeps the same promise.

use super::*;
use crate::{ControlError, GroupError};

fn desk(name: &'static str) -> (Handle<Do>, Notes, ChildSpec) {
    let (handle, notes) = (mailbox(name, 100), Notes::default());
    let theirs = notes.clone();
    let spec = ChildSpec::new(&handle, move || Clerk { notes: theirs.clone() });
    (handle, notes, spec)
}

fn empty() -> Running {
    Supervisor::new("core", quick()).start(|why| panic!("{why}"))
}

#[test]
fn add_module_ch_6_5_1_gives_a_running_process_a_further_actor_under_its_name() {
    run(async {
        let core = empty();
        let (module, notes, spec) = desk("module");
        module.try_send(Do::Note(1)).unwrap();
        core.add(spec).await.unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [1]);
        assert_eq!(core.registry().views()[0].name, "module");
        let (_, _, again) = desk("module");
        assert_eq!(core.add(again).await, Err(ControlError::Taken("module".into())));
        core.shutdown().await;
    });
}

#[test]
fn add_module_group_ch_6_5_2_and_send2group_ch_6_6_2_reach_every_member() {
    run(async {
        #[derive(Clone)]
        struct News;
        impl Mail for News {
            fn kind(&self) -> &'static str {
                "News"
            }
        }
        let (a, b, c) = (mailbox::<News>("a", 9), mailbox::<News>("b", 9), mailbox::<News>("c", 9));
        let group = Group::new(vec![a.clone()]);
        group.add(&b);
        group.add(&b);
        let elsewhere = group.clone();
        elsewhere.add(&c);
        assert_eq!(group.try_send(&News), 3);
        group.remove(&c);
        assert_eq!(elsewhere.try_send(&News), 2);
        let depths: Vec<_> = [a, b, c].iter().map(|h| h.observe().view().depth).collect();
        assert_eq!(depths, [2, 2, 1]);
    });
}

#[test]
fn clean_up_ch_6_5_3_takes_a_module_out_of_the_core_and_of_all_groups_and_closes_its_channel() {
    run(async {
        let core = empty();
        let ((module, notes, module_spec), (other, _, other_spec)) = (desk("module"), desk("other"));
        core.add(module_spec).await.unwrap();
        core.add(other_spec).await.unwrap();
        let groups = [Group::new(vec![module.clone(), other.clone()]), Group::new(vec![module.clone()])];
        for n in 0..50 {
            module.try_send(Do::Note(n)).unwrap();
        }
        core.remove("module").await.unwrap();
        assert_eq!(notes.lock().unwrap().len(), 50, "what was accepted is handled first");
        assert!(matches!(module.try_send(Do::Note(0)), Err(SendError::Closed(_))));
        assert_eq!(groups.map(|group| group.members().len()), [1, 0]);
        assert_eq!(core.registry().views().iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["other"]);
        assert_eq!(core.remove("module").await, Err(ControlError::Unknown("module".into())));
        core.shutdown().await;
    });
}

#[test]
fn send_ch_6_6_1_and_receive_ch_6_6_3_deliver_in_order_and_tell_a_closed_channel() {
    run(async {
        let core = empty();
        let (module, notes, spec) = desk("module");
        core.add(spec).await.unwrap();
        for n in 0..1000 {
            module.send(Do::Note(n)).await.unwrap();
        }
        eventually!(SOON, notes.lock().unwrap().len() == 1000);
        assert!(notes.lock().unwrap().windows(2).all(|w| w[0] + 1 == w[1]));
        core.shutdown().await;
        assert!(matches!(module.send(Do::Note(0)).await, Err(SendError::Closed(Do::Note(0)))), "it is given back");
    });
}

#[test]
fn send_sync_ch_6_6_4_waits_for_the_answer_until_its_deadline() {
    run(async {
        let core = empty();
        let (module, _, spec) = desk("module");
        assert_eq!(module.ask(Duration::from_millis(30), Do::Ask).await, Err(AskError::Deadline));
        core.add(spec).await.unwrap();
        assert_eq!(module.ask(SOON, Do::Ask).await, Ok(0));
        core.shutdown().await;
    });
}

#[test]
fn send2group_sync_ch_6_6_5_succeeds_only_if_all_n_answered() {
    run(async {
        let core = empty();
        let desks = [desk("a"), desk("b"), desk("c")];
        let group = Group::new(desks.iter().map(|(handle, ..)| handle.clone()).collect());
        let mut handles = Vec::new();
        for (handle, _, spec) in desks {
            core.add(spec).await.unwrap();
            handles.push(handle);
        }
        handles[1].send(Do::Note(1)).await.unwrap();
        assert_eq!(group.ask(SOON, Do::Ask).await, Ok(vec![0, 1, 0]), "the answers of all, in the order of the members");
        let (mute, _, _) = desk("mute");
        group.add(&mute);
        let unanswered = group.ask(Duration::from_secs(1), Do::Ask).await.unwrap_err();
        assert_eq!(unanswered, GroupError { of: 4, silent: vec![("mute", AskError::Deadline)] });
        assert_eq!(unanswered.to_string(), "1 of 4 members did not answer: mute (no answer within the deadline)");
        assert_eq!(Group::<Do>::new(vec![]).ask(SOON, Do::Ask).await, Ok(vec![]));
        core.shutdown().await;
    });
}

#[test]
fn send_resp_ch_6_6_6_answers_once_and_a_lost_answer_is_an_error_at_once() {
    run(async {
        let core = empty();
        let (module, _, spec) = desk("module");
        core.add(spec).await.unwrap();
        let (reply, answer) = Reply::channel();
        let question = Do::Ask(reply);
        module.send(question).await.unwrap();
        assert_eq!(answer.await, Ok(0));
        // A question that is thrown away fails its asker long before the deadline.
        let (reply, answer) = Reply::<usize>::channel();
        drop(Do::Ask(reply));
        assert!(answer.await.is_err());
        core.shutdown().await;
    });
}

#[test]
fn a_module_that_is_not_enabled_ch_6_3_takes_and_forgets_and_can_be_enabled_and_disabled_at_run_time() {
    run(async {
        let (module, notes, enabled) = desk("module");
        let core = Supervisor::new("core", quick()).child(ChildSpec::disabled(&module)).start(|why| panic!("{why}"));
        module.send(Do::Note(1)).await.unwrap();
        let view = || module.observe().view();
        eventually!(SOON, view().handled == 1 && view().state == State::Disabled);
        assert_eq!(core.registry().health(), crate::Health::Green, "a choice of the operator is no fault");

        core.replace(enabled).await.unwrap();
        eventually!(SOON, view().state == State::Up);
        module.send(Do::Note(2)).await.unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [2]);

        core.replace(ChildSpec::disabled(&module)).await.unwrap();
        eventually!(SOON, view().state == State::Disabled);
        module.send(Do::Note(3)).await.unwrap();
        eventually!(SOON, view().handled == 3);
        assert_eq!(*notes.lock().unwrap(), [2]);
        let (_, _, stranger) = desk("stranger");
        assert_eq!(core.replace(stranger).await, Err(ControlError::Unknown("stranger".into())));
        core.shutdown().await;
    });
}
