//! The certificate authority: one key that signs the server, the administrator and every node.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use model::NodeName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use wire::identity;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::{PkiError, SignError};
use super::identity::ADMINISTRATORS;

const DAY: Duration = Duration::from_secs(86_400);
/// Life of the authority.
const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// Certificates begin a day early, because clocks at the edge are wrong.
const BACKDATED: Duration = DAY;

/// A certificate authority, ready to sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
}

/// What a leaf certificate is for.
pub enum Leaf<'a> {
    /// CloudHub, its HTTPS port and the embedded API, under these names and addresses.
    Server(&'a [String]),
    /// The administrator's `kubectl`: `system:masters`.
    Admin,
}

impl Authority {
    /// A new authority with a new EC P-256 key, valid for ten years.
    pub fn create(now: SystemTime) -> Result<(Self, KeyPair), PkiError> {
        let failed = |source| PkiError::Crypto { action: "make the certificate authority", source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = parameters(subject("skep-ca", "skep"), now, now + CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).map_err(failed)?.der().clone();
        let copy = KeyPair::try_from(key.serialized_der()).map_err(failed)?;
        Ok((Self { certificate, issuer: Issuer::new(params, copy), not_after: now + CA_LIFE }, key))
    }

    /// An authority from its parts, which the caller found to belong together.
    pub fn from_parts(certificate: CertificateDer<'static>, key: KeyPair, not_after: SystemTime) -> Result<Self, PkiError> {
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|source| PkiError::Crypto { action: "read the certificate authority", source })?;
        Ok(Self { certificate, issuer, not_after })
    }

    /// The certificate that everybody trusts.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The private key, PKCS #8 DER. It keys the join tokens.
    pub fn key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    /// Signs a certificate for `key`. It ends after `life`, or with the authority.
    pub fn issue(&self, leaf: &Leaf<'_>, key: &KeyPair, now: SystemTime, life: Duration) -> Result<CertificateDer<'static>, PkiError> {
        let failed = |source| PkiError::Crypto { action: "sign a certificate of our own", source };
        let until = (now + life).min(self.not_after);
        let params = match leaf {
            Leaf::Server(names) => {
                let mut params = parameters(subject("skep-cloud", "skep"), now, until);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect::<Result<_, _>>()?;
                params
            }
            Leaf::Admin => {
                let mut params = parameters(subject("skep-admin", ADMINISTRATORS), now, until);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                params
            }
        };
        Ok(params.signed_by(key, &self.issuer).map_err(failed)?.der().clone())
    }

    /// Signs a node's request. Only the public key is taken from it: subject, usage and life are ours.
    ///
    /// # Errors
    /// `Request` if it is not a self-signed PKCS #10 request, `Subject` if it names somebody else.
    pub fn sign_node(&self, request: &[u8], node: &NodeName, now: SystemTime, life: Duration) -> Result<CertificateDer<'static>, SignError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| SignError::Request(error.to_string()))?;
        let asked = identity::common_name(node);
        match request.params.distinguished_name.get(&DnType::CommonName) {
            Some(found) if text(found) != asked => {
                return Err(SignError::Subject { found: text(found), asked });
            }
            _ => {}
        }
        let mut params = parameters(subject(&asked, identity::NODES), now, (now + life).min(self.not_after));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&request.public_key, &self.issuer).map(|signed| signed.der().clone()).map_err(|error| {
            log::error!(node:% = node, error = error.to_string().as_str(); "node certificate not signed");
            SignError::Internal
        })
    }

    /// Whether `certificate` carries this authority's signature.
    pub fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        X509Certificate::from_der(&self.certificate).is_ok_and(|(_, own)| certificate.verify_signature(Some(own.public_key())).is_ok())
    }
}

/// Whether the key's public half is the certificate's.
pub fn belongs(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    certificate.public_key().raw == key.subject_public_key_info()
}

/// A name or address as a certificate's alternative name.
pub fn alternative_name(address: &str) -> Result<SanType, PkiError> {
    if let Ok(ip) = address.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let invalid = || PkiError::AdvertiseAddress { address: address.to_owned() };
    if rustls_pki_types::DnsName::try_from(address).is_err() {
        return Err(invalid());
    }
    address.to_owned().try_into().map(SanType::DnsName).map_err(|_| invalid())
}

fn parameters(name: DistinguishedName, now: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = (now - BACKDATED).into();
    params.not_after = until.into();
    // The default is a digest of the key, which a renewed certificate would share with its predecessor.
    params.serial_number = Some(SerialNumber::from_slice(uuid::Uuid::new_v4().as_bytes()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn subject(common_name: &str, organization: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, organization);
    name.push(DnType::CommonName, common_name);
    name
}

fn text(value: &rcgen::DnValue) -> String {
    match value {
        rcgen::DnValue::Utf8String(text) => text.clone(),
        rcgen::DnValue::PrintableString(text) => text.as_str().to_owned(),
        rcgen::DnValue::Ia5String(text) => text.as_str().to_owned(),
        other => format!("{other:?}"),
    }
}
