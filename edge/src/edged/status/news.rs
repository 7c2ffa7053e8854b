//! What of a change of a status is worth an event: pure.

use super::super::pod::Pod;
use super::{PodStatus, Waiting};

/// Something that went wrong with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Which container; `None` is the pod.
    pub container: Option<String>,
    /// The kubelet's word.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// What is new in `status` after `previous`: containers that now wait for a back-off, and a pod that cannot run here.
pub fn news(pod: &Pod, previous: Option<&PodStatus>, status: &PodStatus) -> Vec<News> {
    let mut found = Vec::new();
    for one in status.init_container_statuses.iter().chain(&status.container_statuses) {
        let waits = |status: &PodStatus| status.container(&one.name).and_then(|one| one.state.waiting.clone());
        let Some(Waiting { reason, .. }) = &one.state.waiting else { continue };
        if previous.and_then(waits).is_some_and(|before| before.reason == *reason) {
            continue;
        }
        let message = match reason.as_str() {
            "CrashLoopBackOff" => {
                let metadata = &pod.metadata;
                format!("Back-off restarting failed container {} in pod {}_{}({})", one.name, metadata.name, metadata.namespace, metadata.uid)
            }
            "ImagePullBackOff" => format!("Back-off pulling image \"{}\"", one.image),
            _ => continue,
        };
        found.push(News { container: Some(one.name.clone()), reason: "BackOff", message });
    }
    let is_refused = ["Unsupported", "InvalidSpec", "OutOfpods", "OutOfcpu", "OutOfmemory", "NodePorts"].contains(&status.reason.as_str());
    if is_refused && previous.is_none_or(|before| before.reason != status.reason) {
        found.push(News { container: None, reason: "FailedAdmission", message: format!("{}: {}", status.reason, status.message) });
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::{ContainerStatus, State};
    use super::*;

    fn waiting(reason: &str) -> PodStatus {
        let state = State { waiting: Some(Waiting { reason: reason.into(), message: String::new() }), ..State::default() };
        PodStatus {
            container_statuses: vec![ContainerStatus { name: "a".into(), image: "i:1".into(), state, ..ContainerStatus::default() }],
            ..PodStatus::default()
        }
    }

    #[test]
    fn a_back_off_is_news_once() {
        let pod = Pod::parse(r#"{"metadata":{"name":"web","namespace":"ns","uid":"u"},"spec":{}}"#).unwrap();
        let said = |before: Option<&PodStatus>, now: &str| news(&pod, before, &waiting(now)).into_iter().map(|one| one.message).collect::<Vec<_>>();
        assert_eq!(said(None, "CrashLoopBackOff"), ["Back-off restarting failed container a in pod web_ns(u)"]);
        assert_eq!(said(Some(&waiting("ErrImagePull")), "ImagePullBackOff"), ["Back-off pulling image \"i:1\""]);
        assert!(said(Some(&waiting("CrashLoopBackOff")), "CrashLoopBackOff").is_empty());
        assert!(said(None, "ContainerCreating").is_empty());
    }

    #[test]
    fn a_refusal_is_news_once() {
        let pod = Pod::parse(r#"{"metadata":{"name":"web","uid":"u"},"spec":{}}"#).unwrap();
        let refused = PodStatus { reason: "Unsupported".into(), message: "spec.x".into(), ..PodStatus::default() };
        assert_eq!(news(&pod, None, &refused)[0].message, "Unsupported: spec.x");
        assert!(news(&pod, Some(&refused), &refused).is_empty());
    }
}
