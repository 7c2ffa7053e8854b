//! A small registry on this machine that lets in who logs in (OCI distribution specification, pulling only).

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::dev::ServerHandle;
use actix_web::http::{StatusCode, header};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Who is let in.
pub(super) const USER: &str = "robot";
/// With this.
pub(super) const PASSWORD: &str = "correct-horse";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// One image of busybox, with a layer that no other has: an engine does not ask for what it has.
struct Content {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Content {
    fn new(stamp: &str) -> Self {
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(busybox.len().try_into().unwrap());
        header.set_mode(0o755);
        tar.append_data(&mut header, "bin/busybox", busybox.as_slice()).unwrap();
        header.set_size(stamp.len().try_into().unwrap());
        tar.append_data(&mut header, "stamp", stamp.as_bytes()).unwrap();
        let layer = tar.into_inner().unwrap();
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Labels": {"stamp": stamp}},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
        let config = config.to_string().into_bytes();
        let part = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "size": bytes.len(), "digest": digest(bytes)});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": part(CONFIG, &config), "layers": [part(LAYER, &layer)]});
        Self { layer, config, manifest: manifest.to_string().into_bytes() }
    }
}

/// `sha256:` and 64 digits.
pub(super) fn digest(bytes: &[u8]) -> String {
    let digits: Vec<String> = ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

/// It runs until [`Registry::stop`], or as long as the test.
pub(super) struct Registry {
    /// `127.0.0.1:port`: engines talk to such an address without TLS.
    pub(super) address: String,
    /// Of the image.
    pub(super) digest: String,
    asked: Arc<Mutex<Vec<String>>>,
    server: ServerHandle,
}

/// Any tag of the repository `app` is one image; of `broken` the manifest is none, of `forged` the layer is not what its
/// digest says.
struct State {
    app: Content,
    forged: Content,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// An image that no other test has.
    pub(super) fn start(stamp: &str) -> Self {
        let (app, forged) = (Content::new(stamp), Content::new(&format!("{stamp}-forged")));
        let (digest, asked) = (digest(&app.manifest), Arc::new(Mutex::new(Vec::new())));
        let state = web::Data::new(State { app, forged, asked: asked.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = HttpServer::new(move || App::new().app_data(state.clone()).default_service(web::to(answer)));
        let server = server.workers(1).disable_signals().listen(listener).unwrap().run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { address, digest, asked, server: handle }
    }

    /// What was asked for so far by who may, as `name:tag`. An engine asks by tag what the digest is, then by digest for what
    /// it has not.
    pub(super) fn given(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| !one.contains("sha256:")).cloned().collect()
    }

    /// A Secret as `kubectl create secret docker-registry` makes it.
    pub(super) fn secret(&self, name: &str, password: &str) -> Value {
        let auths = json!({"auths": {&self.address: {"username": USER, "password": password}}});
        json!({"metadata": {"name": name, "namespace": "default", "uid": format!("{name}-1")}, "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": STANDARD.encode(auths.to_string())}})
    }

    pub(super) async fn stop(&self) {
        self.server.stop(false).await;
    }
}

async fn answer(request: HttpRequest, state: web::Data<State>) -> HttpResponse {
    let login = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    if request.headers().get(header::AUTHORIZATION).is_none_or(|given| given.as_bytes() != login.as_bytes()) {
        let errors = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
        return HttpResponse::Unauthorized().insert_header((header::WWW_AUTHENTICATE, "Basic realm=\"test\"")).json(errors);
    }
    let path: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    let content = if path.get(1) == Some(&"forged") { &state.forged } else { &state.app };
    let manifest_digest = digest(&content.manifest);
    match path.as_slice() {
        ["v2"] => HttpResponse::Ok().json(json!({})),
        ["v2", name, "manifests", reference] if *name == "broken" || !reference.contains(':') || *reference == manifest_digest => {
            state.asked.lock().unwrap().push(format!("{name}:{reference}"));
            let body = if *name == "broken" { b"{\"schemaVersion\": \"two\"}".to_vec() } else { content.manifest.clone() };
            let mut answer = HttpResponse::Ok();
            answer.insert_header((header::CONTENT_TYPE, MANIFEST)).insert_header(("Docker-Content-Digest", digest(&body))).body(body)
        }
        ["v2", name, "blobs", wanted] => {
            let found = [&content.layer, &content.config].into_iter().find(|bytes| digest(bytes) == *wanted);
            let Some(found) = found else { return HttpResponse::NotFound().finish() };
            let mut bytes = found.clone();
            if *name == "forged" && *found == content.layer {
                let last = bytes.len() - 1;
                bytes[last] ^= 1;
            }
            HttpResponse::Ok().content_type("application/octet-stream").body(bytes)
        }
        _ => {
            let errors = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
            HttpResponse::build(StatusCode::NOT_FOUND).json(errors)
        }
    }
}
