//! TLS to whoever answers: for what is compared with a fingerprint afterwards, and for probes, whose question is only
//! whether somebody answers.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

type Config = Result<Arc<ClientConfig>, rustls::Error>;

/// Trusts whoever answers, as long as it holds the key of the certificate that it shows. Never for anything that is then
/// believed.
///
/// # Errors
/// rustls', when its provider lacks what it needs.
pub fn trusting_anybody() -> Config {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| config(true));
    CONFIG.clone()
}

/// Trusts whoever answers, whatever it shows: also certificates that rustls takes no key from, such as those of X.509's first
/// version or with RSA of 1024 bits, which the kubelet's probes accept. Only for the question whether somebody answers.
///
/// # Errors
/// As [`trusting_anybody`].
pub fn trusting_anything() -> Config {
    static CONFIG: LazyLock<Config> = LazyLock::new(|| config(false));
    CONFIG.clone()
}

fn config(needs_key: bool) -> Config {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { provider, needs_key }))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
    /// Whoever answers must hold the key of its certificate.
    needs_key: bool,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.needs_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.needs_key {
            return Ok(HandshakeSignatureValid::assertion());
        }
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if !self.needs_key {
            // The one that Go offers beside these.
            schemes.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        }
        schemes
    }
}
