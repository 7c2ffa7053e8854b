//! Errors of a TLS connection to a broker, in a sentence that says what to do.

use std::io;

use super::tunnel::TlsBroker;

/// What went wrong and what to do, from the error of a TLS handshake.
pub(super) fn handshake_in_words(broker: &TlsBroker, error: &io::Error) -> String {
    let TlsBroker { host, port, .. } = broker;
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            format!("{host}:{port} ended the TLS handshake: name its TLS port in mqtt.server, or look at the broker's log")
        }
        _ => in_words(broker, error),
    }
}

/// What went wrong and what to do, from the error of a TLS connection.
pub(super) fn in_words(TlsBroker { host, port, files }: &TlsBroker, error: &io::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    let ca = files.ca.display();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) {
        Some(Tls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature)) => {
            format!("the certificate of {host} was not signed by an authority in `{ca}`: name the broker's authority in mqtt.tls.ca-file")
        }
        Some(Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. })) => {
            format!("the broker's certificate is not for `{host}`: write a name that stands in it into mqtt.server")
        }
        Some(Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            format!("the certificate of {host} has expired: renew it, or set the clock of this machine")
        }
        Some(Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
            format!("the certificate of {host} is not valid yet: set the clock of this machine")
        }
        Some(Tls::AlertReceived(Alert::CertificateRequired)) => {
            format!("{host} asks for a certificate: name one, and its key, in mqtt.tls.cert-file and mqtt.tls.key-file")
        }
        Some(Tls::AlertReceived(Alert::CertificateExpired)) => {
            format!("{host} says that our certificate has expired: renew the files of mqtt.tls.cert-file and mqtt.tls.key-file")
        }
        Some(Tls::AlertReceived(alert)) => {
            format!("{host} refused the TLS connection ({alert:?}): look at its log, and at mqtt.tls.cert-file and mqtt.tls.key-file")
        }
        Some(Tls::InvalidMessage(_)) => format!("{host}:{port} does not speak TLS: name its TLS port in mqtt.server, or write tcp://"),
        Some(other) => format!("TLS with {host}: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => format!("{host} ended the connection without a goodbye"),
        None => format!("TLS with {host}: {error}"),
    }
}
