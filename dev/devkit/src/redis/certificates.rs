//! The certificate of a server with TLS, and its certificate authority.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::state::write_private;
use crate::server_user::ServerUser;

/// Who the server says it is.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

pub struct Certificates {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    pub fn in_dir(dir: &Path) -> Self {
        Self { ca: dir.join("ca.crt"), certificate: dir.join("server.crt"), key: dir.join("server.key") }
    }

    /// The authority's key is thrown away: nothing else will be signed.
    pub fn make(&self, user: &ServerUser) -> Result<()> {
        let [ca, certificate, key] = generate().context("cannot make a certificate")?;
        write_private(user, &self.key, &key)?;
        user.write_file(&self.certificate, &certificate)?;
        user.write_file(&self.ca, &ca)?;
        // PostgreSQL may run as another user, and the caller's umask has no say.
        fs::set_permissions(&self.ca, Permissions::from_mode(0o644))
            .with_context(|| format!("cannot set the mode of {}", self.ca.display()))
    }

    pub fn exist(&self) -> bool {
        [&self.ca, &self.certificate, &self.key].into_iter().all(|file| file.exists())
    }
}

/// The authority's certificate, the server's and its key, as PEM.
fn generate() -> Result<[String; 3], rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "tailstream-devkit CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?;

    let mut server = CertificateParams::new(NAMES.map(str::to_owned))?;
    server.distinguished_name.push(DnType::CommonName, NAMES[0]);
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let server_key = KeyPair::generate()?;
    let certificate = server.signed_by(&server_key, &Issuer::new(authority, authority_key))?;
    Ok([ca.pem(), certificate.pem(), server_key.serialize_pem()])
}
