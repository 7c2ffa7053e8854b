//! The one place where mailboxes meet: capacities, peers, start order, and the orderly stop.
//!
//! Start order: certificates → embedded API → kube client → ports → actors under their supervisor. Stop order is the
//! reverse: nobody new comes in while what is queued is worked off, and CloudHub's mailbox closes last, because all
//! others answer through it.
//!
//! | mailbox | messages | MiB | when it is full |
//! |---|---|---|---|
//! | cloud_hub | 8192 | 64 | controllers wait (CloudHub itself waits for nobody, so there is no ring) |
//! | downstream | 1024 | 16 | its watches wait, and with them the API server's stream |
//! | upstream | 4096 | 32 | the session that has a message for it is not read |
//! | device_controller | 4096 | 32 | the same; its watches wait |

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actor::{ChildSpec, Policy, Quarantine, Registry, Supervisor, chain, mailbox_with_bytes};
use admin::{Exit, Metric};
use kube::config::{KubeConfigOptions, Kubeconfig};
use model::{Clock, SystemClock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::cloud_hub::{self, CloudHub, Hub, Totals};
use crate::cluster::Cluster;
use crate::config::{ApiSource, CloudConfig};
use crate::device_controller::{self, DeviceController};
use crate::edge_controller::downstream::{self, Downstream};
use crate::edge_controller::upstream::{self, Upstream};
use crate::embedded::{self, EmbeddedApi, EmbeddedConfig, EmbeddedError};
use crate::limits;
use crate::pki::{self, ClientCertificates, Pki};

const MIB: usize = 1 << 20;

/// A node whose lease and status are older becomes `Unknown` in the embedded API (Kubernetes: 40 s).
const NODE_LOST_AFTER: Duration = Duration::from_secs(40);

/// Runs the service until SIGTERM or SIGINT.
///
/// # Errors
/// See [`Exit`]; each ends the process with a stated code.
pub fn run(config: CloudConfig) -> Result<(), Exit> {
    actor::install_panic_hook();
    // One provider for everything that asks for the process's default; a second call in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    actix_rt::System::new().block_on(serve(config))
}

/// A token with which an edge machine may join this cloud.
///
/// # Errors
/// [`Exit::Certificate`] where no service has run with this data directory.
pub fn token(config: &CloudConfig) -> Result<String, Exit> {
    let settings = pki_settings(config);
    Pki::token_from(&settings.dir, settings.token_life).map_err(|error| Exit::from(&error))
}

fn pki_settings(config: &CloudConfig) -> pki::Config {
    let mut settings = pki::Config::new(config.pki_dir());
    settings.advertise.clone_from(&config.cloudhub.advertise_address);
    settings
}

async fn serve(config: CloudConfig) -> Result<(), Exit> {
    // First, so that a signal during start-up is not lost.
    let mut terminate = listen_for(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen_for(SignalKind::interrupt(), "SIGINT")?;
    admin::outlive_hangup()?;

    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
    let source = config.api_source(in_cluster).map_err(unsettled)?;
    // What may be wrong with a configured API is said before anything is written.
    let configured = match source {
        ApiSource::Embedded => None,
        ApiSource::Kubeconfig(_) | ApiSource::InCluster => Some(kube_config(&config, &source).await?),
    };
    let orphaned = configured.is_none() && config.database().exists() && !config.pki_dir().exists();
    let certificates = Arc::new(Pki::open(pki_settings(&config)).map_err(|error| Exit::from(&error))?);
    if orphaned {
        log::warn!(
            lost:% = config.pki_dir().display(), database:% = config.database().display();
            "the certificates were gone while the database is there: edges that joined before trust the old authority and stay away; \
             put the old directory back, or join them again"
        );
    }
    let (_claim, api, kube) = match configured {
        Some(kube) => (None, None, kube),
        None => {
            // Only the embedded API has a database; replicas beside a cluster share nothing.
            let claim = admin::claim(&config.database())?;
            (Some(claim), Some(start_embedded(&config, &certificates).await?), kube_config(&config, &source).await?)
        }
    };

    // How a message of it enters again, and who hears that one came here, is said by the border: CloudHub.
    let quarantine = open_quarantine(&config)?;
    let registry = Registry::with_quarantine(quarantine.clone());

    limits::raise_open_files(config.cloudhub.node_limit);
    let cloud_hub = mailbox_with_bytes("cloud_hub", 8192, 64 * MIB);
    let downstream = mailbox_with_bytes("downstream", 1024, 16 * MIB);
    let upstream = mailbox_with_bytes("upstream", 4096, 32 * MIB);
    let device_controller = mailbox_with_bytes("device_controller", 4096, 32 * MIB);

    let hub = Hub::new(
        cloud_hub::Config {
            address: config.hub_address().to_string(),
            keepalive: Duration::from_secs(config.cloudhub.keepalive_interval),
            write_timeout: Duration::from_secs(config.cloudhub.write_timeout),
            node_limit: config.cloudhub.node_limit,
            ..cloud_hub::Config::default()
        },
        cloud_hub::Peers {
            cloud_hub: cloud_hub.clone(),
            upstream: upstream.clone(),
            downstream: downstream.clone(),
            devices: device_controller.clone(),
        },
    );
    let namespace = config.controller.kube.namespace.clone();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);

    // Each incarnation has a client of its own, whose connections live on its arbiter and end with it.
    let supervisor = Supervisor::new("cloud", Policy::default())
        .registered(&registry)
        .child(ChildSpec::new(&cloud_hub, {
            let hub = hub.clone();
            move || CloudHub::new(hub.clone())
        }))
        .child(
            ChildSpec::new(&downstream, {
                let settings = downstream::Config { namespace: namespace.clone() };
                let peers = downstream::Peers { downstream: downstream.clone(), cloud_hub: cloud_hub.clone() };
                let (kube, clock) = (kube.clone(), clock.clone());
                move || Downstream::new(settings.clone(), peers.clone(), connect(&kube), clock.clone())
            })
            .batch(256),
        )
        .child(
            ChildSpec::new(&upstream, {
                let peers = upstream::Peers { upstream: upstream.clone(), downstream: downstream.clone(), cloud_hub: cloud_hub.clone() };
                let (kube, clock) = (kube.clone(), clock.clone());
                move || Upstream::new(peers.clone(), connect(&kube), clock.clone())
            })
            .batch(256),
        )
        .child(
            ChildSpec::new(&device_controller, {
                let settings = device_controller::Config { namespace };
                let peers = device_controller::Peers { device_controller: device_controller.clone(), cloud_hub: cloud_hub.clone() };
                move || DeviceController::new(settings.clone(), peers.clone(), connect(&kube), clock.clone())
            })
            .batch(256),
        );

    // All ports before any actor: an occupied one ends the process before anything has happened.
    let ready = Arc::new(AtomicBool::new(false));
    let admin = admin::bind(admin_settings(&config, hub.clone(), ready.clone())).map_err(|error| admin_failed(&error))?;
    let tls = certificates.server_tls(ClientCertificates::Required).map_err(|error| Exit::from(&error))?;
    let nodes = cloud_hub::listener::start(hub.clone(), tls).map_err(|error| Exit::Unavailable(chain(&error)))?;
    let (joins, joins_at) =
        pki::https::start(&config.https_address().to_string(), certificates.clone()).map_err(|error| Exit::Unavailable(chain(&error)))?;

    let (gave_up, escalation) = oneshot::channel();
    let running = supervisor.start(move |why| {
        let _ = gave_up.send(why);
    });
    let admin = admin.serve(running.clone()).map_err(|error| admin_failed(&error))?;
    let (nodes_handle, nodes_at, joins_handle) = (nodes.handle(), nodes.address, joins.handle());
    actix_rt::spawn(nodes.server);
    actix_rt::spawn(joins);
    ready.store(true, Ordering::Release);
    log::info!(nodes:% = nodes_at, certificates:% = joins_at, admin:? = admin.addresses; "skep-cloud serves");

    let end = tokio::select! {
        _ = terminate.recv() => { log::info!("stopping on SIGTERM"); Ok(()) }
        _ = interrupt.recv() => { log::info!("stopping on SIGINT"); Ok(()) }
        why = escalation => Err(Exit::Supervision(format!("supervision gave up: {}", why.as_deref().unwrap_or("the supervisor ended")))),
        () = ended(api.as_ref()) => Err(Exit::Supervision("the embedded API ended by itself, its log says why".to_owned())),
    };

    ready.store(false, Ordering::Release);
    hub.close_all();
    tokio::join!(joins_handle.stop(true), nodes_handle.stop(true));
    running.shutdown().await;
    admin.stop().await;
    if let Some(api) = api {
        api.stop().await;
    }
    quarantine.flush();
    end
}

fn admin_failed(error: &admin::AdminError) -> Exit {
    match error {
        admin::AdminError::Bind { .. } => Exit::Unavailable(chain(error)),
        admin::AdminError::NotLoopback(_) | admin::AdminError::Access(_) => unsettled(chain(error)),
    }
}

fn open_quarantine(config: &CloudConfig) -> Result<Quarantine, Exit> {
    let directory = config.quarantine_dir();
    Quarantine::open(&directory).map_err(|error| {
        Exit::State(format!(
            "cannot use the quarantine's directory `{}`: {error}; give this user the right to, or set `data-dir`",
            directory.display()
        ))
    })
}

/// The end of a configuration that is well-formed and still cannot work.
fn unsettled(why: String) -> Exit {
    Exit::Configuration(format!("configuration: {why}"))
}

fn listen_for(kind: SignalKind, name: &str) -> Result<Signal, Exit> {
    signal(kind).map_err(|error| Exit::State(format!("cannot listen for {name}: {error}")))
}

async fn ended(api: Option<&EmbeddedApi>) {
    match api {
        Some(api) => api.ended().await,
        None => std::future::pending().await,
    }
}

async fn start_embedded(config: &CloudConfig, certificates: &Pki) -> Result<EmbeddedApi, Exit> {
    let dir = config.pki_dir();
    let settings = EmbeddedConfig {
        address: config.embedded.address,
        port: config.embedded.port,
        database: config.database(),
        server_certificate: dir.join("server.crt"),
        server_key: dir.join("server.key"),
        client_ca: dir.join("ca.crt"),
        lease_duration: NODE_LOST_AFTER,
    };
    // It blocks for the migrations and one fsync.
    let started = tokio::task::spawn_blocking(move || embedded::start(settings)).await;
    let started = started.map_err(|error| Exit::State(format!("the embedded API did not start: {error}")))?;
    let api = started.map_err(|error| {
        let text = chain(&error);
        match error {
            EmbeddedError::PortOccupied { .. } | EmbeddedError::Listen { .. } => Exit::Unavailable(format!("{text} (`embedded.port`)")),
            EmbeddedError::Directory { .. } | EmbeddedError::DatabaseTooNew { .. } | EmbeddedError::Database { .. } => Exit::State(text),
            EmbeddedError::Certificate { .. } => Exit::Certificate(text),
            EmbeddedError::Thread(_) => Exit::Unavailable(text),
        }
    })?;
    // Behind an address that means "all of them" the loopback one is reachable from here.
    let host = match api.addr.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        ip => ip.to_string(),
    };
    let server = format!("https://{host}:{}", api.addr.port());
    certificates.write_kubeconfig(&config.admin_kubeconfig(), &server).map_err(|error| Exit::from(&error))?;
    log::info!(kubeconfig:% = config.admin_kubeconfig().display(), server = server.as_str(); "kubeconfig written");
    Ok(api)
}

async fn kube_config(config: &CloudConfig, source: &ApiSource) -> Result<kube::Config, Exit> {
    let from_file = async |path: &Path, key: &str| {
        let unusable = |why: String| unsettled(format!("cannot use the kubeconfig `{}`: {why}; correct the file or `{key}`", path.display()));
        let file = Kubeconfig::read_from(path).map_err(|error| unusable(error.to_string()))?;
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|error| unusable(error.to_string()))
    };
    let kube = match source {
        ApiSource::Kubeconfig(path) => from_file(path, "controller.kube.kubeconfig").await?,
        ApiSource::Embedded => from_file(&config.admin_kubeconfig(), "embedded.kubeconfig").await?,
        ApiSource::InCluster => kube::Config::incluster().map_err(|error| {
            unsettled(format!("cannot use the service account of this pod: {}; mount it, or set `controller.kube.kubeconfig`", chain(&error)))
        })?,
    };
    // Once here, where a certificate that cannot be used has one clear end; `connect` builds the same again.
    Cluster::connect(&kube).map_err(|error| unsettled(format!("cannot use the credentials of the API: {}", chain(&error))))?;
    log::info!(server:% = kube.cluster_url; "controllers use this API");
    Ok(kube)
}

fn connect(kube: &kube::Config) -> Cluster {
    Cluster::connect(kube).expect("the same configuration made a client at start-up")
}

fn admin_settings(config: &CloudConfig, hub: Arc<Hub>, ready: Arc<AtomicBool>) -> admin::AdminConfig {
    admin::AdminConfig {
        listen: vec![config.admin_address()],
        title: "skep-cloud".to_owned(),
        prefix: "skep_cloud",
        extra: Arc::new(move || metrics(&hub.totals())),
        read_only: Vec::new(),
        hosts: Vec::new(),
        access: admin::Access::Loopback,
        checks: Arc::new(move || {
            let up = if ready.load(Ordering::Acquire) { Ok(()) } else { Err("starting or stopping".to_owned()) };
            vec![admin::Check::ready("serving", up)]
        }),
        fault_injection: false,
        log: None,
        routes: |_| {},
        data: Arc::new(|_| {}),
    }
}

fn metrics(totals: &Totals) -> Vec<Metric> {
    vec![
        Metric::gauge("nodes_connected", "Nodes connected.", totals.connected as f64),
        Metric::gauge("outbox_frames", "Frames that nodes have not acknowledged.", totals.waiting as f64),
        Metric::gauge("outbox_bytes", "Bytes of them.", totals.waiting_bytes as f64),
        Metric::gauge("outbox_parked", "Objects whose last form a node refused.", totals.parked as f64),
        Metric::counter("sessions_total", "Sessions that began.", totals.sessions),
        Metric::counter("frames_received_total", "Frames that nodes sent.", totals.frames_in),
        Metric::counter("frames_sent_total", "Frames sent to nodes.", totals.frames_out),
        Metric::counter("frames_acknowledged_total", "Frames that nodes acknowledged.", totals.acknowledged),
        Metric::counter("frames_refused_total", "Frames that nodes refused.", totals.refusals),
        Metric::counter("answers_dropped_total", "Answers dropped because too many waited.", totals.answers_dropped),
    ]
}
