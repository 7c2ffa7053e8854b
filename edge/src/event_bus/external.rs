//! The external broker, from the `mqtt` settings: address, login, TLS, client id.

use std::path::Path;

use log::warn;
use model::NodeName;

use super::transport::{Endpoint, Login, Manner, TlsBroker, TlsFiles};
use crate::config::{Invalid, Mqtt};

/// Longest client id, bytes: ours, because MQTT's limit of 64 KiB serves nobody.
const CLIENT_ID_BYTES_MAX: usize = 256;

/// What an address says.
struct Url<'a> {
    host: &'a str,
    port: u16,
    is_tls: bool,
}

/// The external broker's endpoint. Files are not looked at: they are read at each connection.
///
/// # Errors
/// `Invalid` for settings that cannot work together, with what to write instead.
pub fn endpoint(mqtt: &Mqtt, node: &NodeName) -> Result<Endpoint, Invalid> {
    let url = url("mqtt.server", &mqtt.server, true)?;
    let tls = tls(mqtt, &url)?;
    let login = login(mqtt)?;
    if login.is_some() && !url.is_tls && !is_loopback(url.host) {
        warn!(server = mqtt.server; "the password for the MQTT broker crosses the network readable for everybody: use ssl:// in mqtt.server");
    }
    Ok(Endpoint {
        manner: Manner { name: "external", qos: mqtt.external_qos, retain: false },
        server: mqtt.server.clone(),
        client_id: client_id(mqtt, node)?,
        subscribe_qos: mqtt.external_qos,
        login,
        tls,
    })
}

/// Host and port on which the embedded broker listens.
///
/// # Errors
/// `Invalid`.
pub fn listen<'a>(key: &'static str, text: &'a str) -> Result<(&'a str, u16), Invalid> {
    url(key, text, false).map(|url| (bare(url.host), url.port))
}

fn url<'a>(key: &'static str, text: &'a str, may_be_tls: bool) -> Result<Url<'a>, Invalid> {
    let forms = if may_be_tls { "write tcp://HOST:PORT, or ssl://HOST:PORT for TLS" } else { "write tcp://HOST:PORT" };
    // A password might stand in what is refused.
    let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("…@{host}"));
    let invalid = |advice: &str| Invalid::new(key, &shown, advice);
    let (is_tls, rest) = match text.split_once("://") {
        Some(("tcp" | "mqtt", rest)) => (false, rest),
        Some(("ssl" | "tls" | "mqtts", rest)) if may_be_tls => (true, rest),
        _ => return Err(invalid(forms)),
    };
    if rest.contains('@') {
        return Err(invalid("write the user name into mqtt.username, and the password into the file that mqtt.password-file names"));
    }
    let parts = rest.trim_end_matches('/').rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| port.parse::<u16>().ok().map(|port| (host, port)));
    match parsed {
        Some((host, port)) if !host.is_empty() && !host.contains(|c: char| c == '/' || c.is_whitespace()) => Ok(Url { host, port, is_tls }),
        _ => Err(invalid(forms)),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn tls(mqtt: &Mqtt, url: &Url<'_>) -> Result<Option<TlsBroker>, Invalid> {
    let keys = &mqtt.tls;
    let (ca, certificate, key) = (is_given(&keys.ca_file), is_given(&keys.cert_file), is_given(&keys.key_file));
    if !url.is_tls {
        if ca || certificate || key {
            return Err(Invalid::new("mqtt.server", &mqtt.server, "mqtt.tls.* asks for TLS: write ssl://HOST:PORT, or empty mqtt.tls.*"));
        }
        return Ok(None);
    }
    if !ca {
        let advice =
            "name the PEM file of the authority that signed the broker's certificate, or /etc/ssl/certs/ca-certificates.crt for a public one";
        return Err(Invalid::new("mqtt.tls.ca-file", "", advice));
    }
    if certificate != key {
        let (missing, other) = if key { ("mqtt.tls.cert-file", "mqtt.tls.key-file") } else { ("mqtt.tls.key-file", "mqtt.tls.cert-file") };
        return Err(Invalid::new(missing, "", format!("certificate and key go together: name it, or empty {other}")));
    }
    let own = certificate.then(|| (keys.cert_file.clone(), keys.key_file.clone()));
    Ok(Some(TlsBroker { host: bare(url.host).to_owned(), port: url.port, files: TlsFiles { ca: keys.ca_file.clone(), own } }))
}

fn login(mqtt: &Mqtt) -> Result<Option<Login>, Invalid> {
    let password_file = is_given(&mqtt.password_file).then(|| mqtt.password_file.clone());
    if mqtt.username.is_empty() {
        return match password_file {
            // MQTT 3.1.1 §3.1.2.9.
            Some(file) => Err(Invalid::new("mqtt.password-file", file.display(), "a password goes with a user name: set mqtt.username")),
            None => Ok(None),
        };
    }
    if mqtt.username.contains(char::is_control) {
        return Err(Invalid::new("mqtt.username", mqtt.username.escape_debug(), "write a name without control characters"));
    }
    Ok(Some(Login { username: mqtt.username.clone(), password_file }))
}

fn client_id(mqtt: &Mqtt, node: &NodeName) -> Result<String, Invalid> {
    let id = &mqtt.client_id;
    if id.is_empty() {
        return Ok(format!("skep-edge-{node}"));
    }
    if id.len() > CLIENT_ID_BYTES_MAX || id.contains(char::is_control) {
        let advice = format!("write at most {CLIENT_ID_BYTES_MAX} bytes without control characters");
        return Err(Invalid::new("mqtt.client-id", id.escape_debug(), advice));
    }
    Ok(id.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;
    use crate::config::MqttTls;

    fn made(mqtt: &Mqtt) -> Result<Endpoint, Invalid> {
        endpoint(mqtt, &NodeName::new("edge-1").unwrap())
    }

    fn server(url: &str) -> Mqtt {
        Mqtt { server: url.into(), ..Mqtt::default() }
    }

    fn files(ca: &str, certificate: &str, key: &str) -> MqttTls {
        MqttTls { ca_file: ca.into(), cert_file: certificate.into(), key_file: key.into() }
    }

    #[test]
    fn a_plain_address_needs_nothing_else() {
        for url in ["tcp://127.0.0.1:1883", "mqtt://broker:1883/"] {
            let endpoint = made(&server(url)).unwrap();
            assert_eq!((endpoint.client_id.as_str(), endpoint.manner.qos, endpoint.login, endpoint.tls), ("skep-edge-edge-1", 1, None, None));
        }
    }

    #[test]
    fn an_address_of_tls_goes_by_its_host_and_the_files() {
        for (url, host) in [("ssl://broker:8883", "broker"), ("mqtts://10.0.0.1:8883/", "10.0.0.1"), ("tls://[::1]:8883", "::1")] {
            let tls = made(&Mqtt { tls: files("/ca", "/crt", "/key"), ..server(url) }).unwrap().tls.unwrap();
            let own = Some(("/crt".into(), "/key".into()));
            assert_eq!(tls, TlsBroker { host: host.into(), port: 8883, files: TlsFiles { ca: "/ca".into(), own } });
        }
        assert_eq!(made(&Mqtt { tls: files("/ca", "", ""), ..server("ssl://b:1") }).unwrap().tls.unwrap().files.own, None);
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused_by_the_key_that_is_to_be_changed() {
        for (mqtt, key) in [
            (server("ssl://b:8883"), "mqtt.tls.ca-file"),
            (Mqtt { tls: files("/ca", "/crt", ""), ..server("ssl://b:1") }, "mqtt.tls.key-file"),
            (Mqtt { tls: files("/ca", "", "/key"), ..server("ssl://b:1") }, "mqtt.tls.cert-file"),
            (Mqtt { tls: files("/ca", "", ""), ..server("tcp://b:1") }, "mqtt.server"),
            (server("wss://b:1"), "mqtt.server"),
            (server("tcp://b c:1"), "mqtt.server"),
            (Mqtt { password_file: "/p".into(), ..Mqtt::default() }, "mqtt.password-file"),
            (Mqtt { username: "a\0b".into(), ..Mqtt::default() }, "mqtt.username"),
            (Mqtt { client_id: "x".repeat(257), ..Mqtt::default() }, "mqtt.client-id"),
            (Mqtt { client_id: "a\nb".into(), ..Mqtt::default() }, "mqtt.client-id"),
        ] {
            assert_eq!(made(&mqtt).unwrap_err().key, key, "{mqtt:?}");
        }
        assert_eq!(listen("mqtt.internal-server", "ssl://127.0.0.1:1").err().unwrap().key, "mqtt.internal-server");
    }

    #[test]
    fn its_quality_of_service_is_that_of_kubeedge_or_the_one_that_is_set_both_ways() {
        let qos = |mqtt: &Mqtt| made(mqtt).map(|endpoint| (endpoint.manner.qos, endpoint.subscribe_qos, endpoint.manner.retain)).unwrap();
        assert_eq!(qos(&Mqtt { qos: 0, retain: true, ..Mqtt::default() }), (1, 1, false));
        assert_eq!(qos(&Mqtt { external_qos: 2, ..Mqtt::default() }), (2, 2, false));
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        let error = made(&server("tcp://edge:secret@broker:1883")).unwrap_err().to_string();
        assert!(error.contains("mqtt.password-file") && error.contains("broker:1883") && !error.contains("secret"), "{error}");
        let error = made(&server("http://edge:secret@broker:1883")).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn user_name_and_client_id_are_taken_over() {
        let mqtt = Mqtt { username: "u".into(), password_file: "/p".into(), client_id: "mine".into(), ..Mqtt::default() };
        let endpoint = made(&mqtt).unwrap();
        assert_eq!(endpoint.login, Some(Login { username: "u".into(), password_file: Some("/p".into()) }));
        assert_eq!(endpoint.client_id, "mine");
    }
}
