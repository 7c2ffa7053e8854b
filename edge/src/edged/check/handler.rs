//! Probes and hooks of a container.

use serde_json::Value;

use super::super::pod::{Container, GRACE_SECS_MAX, Handler, Probe, Refusal};
use super::{check_number, shown};

/// Longest command of a probe or hook, all its words together.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;

impl Container {
    pub(super) fn check_handlers(&self, field: &str, is_plain_init: bool) -> Result<(), Refusal> {
        let probes = [("livenessProbe", &self.liveness_probe), ("readinessProbe", &self.readiness_probe), ("startupProbe", &self.startup_probe)];
        for (name, probe) in probes {
            let Some(probe) = probe else { continue };
            if is_plain_init {
                return Err(Refusal::invalid(format_args!("{field}.{name}"), "must not be set on an init container that is no sidecar"));
            }
            self.check_probe(&format!("{field}.{name}"), name, probe)?;
        }
        for (name, hook) in [("postStart", &self.lifecycle.post_start), ("preStop", &self.lifecycle.pre_stop)] {
            let Some(hook) = hook else { continue };
            if is_plain_init {
                return Err(Refusal::invalid(format_args!("{field}.lifecycle"), "must not be set on an init container that is no sidecar"));
            }
            self.check_handler(&format!("{field}.lifecycle.{name}"), hook, false)?;
        }
        let signal = &self.lifecycle.stop_signal;
        if !signal.is_empty()
            && (!signal.starts_with("SIG") || signal.len() > 12 || !signal.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b)))
        {
            return Err(Refusal::invalid(
                format_args!("{field}.lifecycle.stopSignal"),
                format_args!("must be a signal's name, not `{}`", shown(signal)),
            ));
        }
        Ok(())
    }

    fn check_probe(&self, field: &str, kind: &str, probe: &Probe) -> Result<(), Refusal> {
        let most = i64::from(i32::MAX);
        let numbers = [
            ("initialDelaySeconds", probe.initial_delay_seconds),
            ("timeoutSeconds", probe.timeout_seconds),
            ("periodSeconds", probe.period_seconds),
            ("successThreshold", probe.success_threshold),
            ("failureThreshold", probe.failure_threshold),
        ];
        for (name, number) in numbers {
            check_number(&format!("{field}.{name}"), Some(number), 0, most)?;
        }
        if kind != "readinessProbe" && probe.success_threshold > 1 {
            return Err(Refusal::invalid(format_args!("{field}.successThreshold"), "must be 1"));
        }
        if kind == "readinessProbe" && probe.termination_grace_period_seconds.is_some() {
            return Err(Refusal::invalid(format_args!("{field}.terminationGracePeriodSeconds"), "must not be set on a readiness probe"));
        }
        let most = GRACE_SECS_MAX.cast_signed();
        check_number(&format!("{field}.terminationGracePeriodSeconds"), probe.termination_grace_period_seconds, 1, most)?;
        self.check_handler(field, &probe.handler, true)
    }

    fn check_handler(&self, field: &str, handler: &Handler, is_probe: bool) -> Result<(), Refusal> {
        let Handler { exec, http_get, tcp_socket, grpc, sleep } = handler;
        let kinds = [exec.is_some(), http_get.is_some(), tcp_socket.is_some(), grpc.is_some() && is_probe, sleep.is_some() && !is_probe];
        if kinds.iter().filter(|is| **is).count() != 1 {
            let kinds = if is_probe { "exec, httpGet, tcpSocket and grpc" } else { "exec, httpGet, tcpSocket and sleep" };
            return Err(Refusal::invalid(field, format_args!("must have exactly one of {kinds}")));
        }
        if let Some(exec) = exec {
            let bytes: usize = exec.command.iter().map(String::len).sum();
            if exec.command.first().is_none_or(String::is_empty) || bytes > COMMAND_BYTES_MAX || exec.command.iter().any(|word| word.contains('\0')) {
                let why = format!("must have a program, at most {COMMAND_BYTES_MAX} bytes and no zero byte");
                return Err(Refusal::invalid(format_args!("{field}.exec.command"), why));
            }
        }
        if let Some(get) = http_get {
            self.check_port(&format!("{field}.httpGet.port"), &get.port)?;
            check_host(&format!("{field}.httpGet.host"), &get.host)?;
            let is_path = get.path.len() <= 4096 && get.path.bytes().all(|b| b.is_ascii_graphic()) && !get.path.contains('#');
            if !is_path {
                return Err(Refusal::invalid(format_args!("{field}.httpGet.path"), "must be a path of at most 4096 printable characters"));
            }
            if !["", "HTTP", "HTTPS"].contains(&get.scheme.as_str()) {
                return Err(Refusal::invalid(format_args!("{field}.httpGet.scheme"), "must be HTTP or HTTPS"));
            }
            let is_name =
                |name: &str| !name.is_empty() && name.len() <= 256 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            let is_value = |value: &str| value.len() <= 4096 && !value.contains(|c: char| c.is_control());
            if get.http_headers.len() > HEADERS_MAX || get.http_headers.iter().any(|h| !is_name(&h.name) || !is_value(&h.value)) {
                return Err(Refusal::invalid(
                    format_args!("{field}.httpGet.httpHeaders"),
                    format_args!("must be at most {HEADERS_MAX} of name and one line"),
                ));
            }
        }
        if let Some(tcp) = tcp_socket {
            self.check_port(&format!("{field}.tcpSocket.port"), &tcp.port)?;
            check_host(&format!("{field}.tcpSocket.host"), &tcp.host)?;
        }
        if let Some(grpc) = grpc.as_ref().filter(|_| is_probe) {
            check_number(&format!("{field}.grpc.port"), Some(grpc.port), 1, 65_535)?;
            if grpc.service.len() > 1024 || grpc.service.contains(|c: char| c.is_control()) {
                return Err(Refusal::invalid(format_args!("{field}.grpc.service"), "must be one line of at most 1024 bytes"));
            }
        }
        if let Some(sleep) = sleep {
            check_number(&format!("{field}.sleep.seconds"), Some(sleep.seconds), 0, i64::from(u32::MAX))?;
        }
        Ok(())
    }

    fn check_port(&self, field: &str, port: &Value) -> Result<(), Refusal> {
        match self.port(port) {
            Some(_) => Ok(()),
            None => Err(Refusal::invalid(field, "must be 1–65535 or the name of a port of the container")),
        }
    }

    /// The number of a port that a probe or hook names by number or name.
    pub fn port(&self, port: &Value) -> Option<u16> {
        let number = |number: i64| u16::try_from(number).ok().filter(|port| *port != 0);
        match port {
            Value::Number(given) => given.as_i64().and_then(number),
            Value::String(text) => match text.parse::<i64>() {
                Ok(given) => number(given),
                Err(_) => self.ports.iter().find(|port| !text.is_empty() && port.name == *text).and_then(|port| number(port.container_port)),
            },
            _ => None,
        }
    }
}

fn check_host(field: &str, host: &str) -> Result<(), Refusal> {
    let is_host = host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    if is_host { Ok(()) } else { Err(Refusal::invalid(field, "must be a DNS name or an address")) }
}
