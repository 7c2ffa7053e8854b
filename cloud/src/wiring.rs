//! The one place where mailboxes meet: capacities, peers, start order, and the orderly stop.
//!
//! Start order: certificates → embedded API → kube client → ports → actors under their supervisor. Stop order is the
//! reverse: nobody new comes in while what is queued is worked off, and CloudHub's mailbox closes last, because all
//! others answer through it.
//!
//! | mailbox | messages | MiB (unless `mailbox.*` says otherwise) | when it is full |
//! |---|---|---|---|
//! | cloud_hub | 8192 | 64 | controllers wait (CloudHub itself waits for nobody, so there is no ring) |
//! | downstream | 1024 | 16 | its watches wait, and with them the API server's stream |
//! | upstream | 4096 | 32 | the session that has a message for it is not read |
//! | device_controller | 4096 | 32 | the same; its watches wait |

mod api;
mod modules;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actor::{Quarantine, Registry, chain};
use admin::systemd::{self, Patience};
use admin::{Check, Exit, LogControl, Metric};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

pub(crate) use modules::Mailboxes;

use crate::cloud_hub::{self, Hub, Totals};
use crate::config::{ApiSource, CloudConfig};
use crate::embedded::{Commits, EmbeddedApi};
use crate::limits;
use crate::pki::{self, ClientCertificates, Pki};
use crate::reload::{Reload, Reread};

/// Runs the service until SIGTERM or SIGINT. `reread` gives the configuration anew at each SIGHUP.
///
/// # Errors
/// See [`Exit`]; each ends the process with a stated code.
pub fn run(config: CloudConfig, log: LogControl, reread: impl Fn() -> Result<CloudConfig, Exit> + 'static) -> Result<(), Exit> {
    actor::install_panic_hook();
    // One provider for everything that asks for the process's default; a second call in one process changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    actix_rt::System::new().block_on(serve(config, log, Box::new(reread)))
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

async fn serve(config: CloudConfig, log: LogControl, reread: Reread) -> Result<(), Exit> {
    // First, so that a signal during start-up is not lost.
    let mut terminate = listen_for(SignalKind::terminate(), "SIGTERM")?;
    let mut interrupt = listen_for(SignalKind::interrupt(), "SIGINT")?;
    let mut hangup = listen_for(SignalKind::hangup(), "SIGHUP")?;

    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty());
    let source = config.api_source(in_cluster).map_err(unsettled)?;
    // What may be wrong with a configured API is said before anything is written.
    let configured = match source {
        ApiSource::Embedded => None,
        ApiSource::Kubeconfig(_) | ApiSource::InCluster => Some(api::kube_config(&config, &source).await?),
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
            (Some(claim), Some(api::start_embedded(&config, &certificates).await?), api::kube_config(&config, &source).await?)
        }
    };

    let quarantine = open_quarantine(&config)?;
    let registry = Registry::with_quarantine(quarantine.clone());

    limits::raise_open_files(config.cloudhub.node_limit);
    let mail = Mailboxes::new(&config.mailbox);
    let hub = Hub::new(
        cloud_hub::Config {
            address: config.hub_address().to_string(),
            keepalive: Duration::from_secs(config.cloudhub.keepalive_interval),
            write_timeout: Duration::from_secs(config.cloudhub.write_timeout),
            node_limit: config.cloudhub.node_limit,
            ..cloud_hub::Config::default()
        },
        cloud_hub::Peers {
            cloud_hub: mail.cloud_hub.clone(),
            upstream: mail.upstream.clone(),
            downstream: mail.downstream.clone(),
            devices: mail.device_controller.clone(),
        },
    );
    cloud_hub::attach(&quarantine, &hub);
    let api_seen = modules::Api::default();
    let supervisor = modules::tree(&config, &mail, &hub, &kube, &api_seen, &registry);

    // All ports before any actor: an occupied one ends the process before anything has happened.
    let listening = Arc::new(AtomicBool::new(false));
    let commits = api.as_ref().map(|api| api.commits.clone());
    let admin = admin::bind(admin_settings(&config, hub.clone(), listening.clone(), api_seen, commits, log.clone())?)
        .map_err(|error| admin_failed(&error))?;
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
    actix_rt::spawn({
        let listening = listening.clone();
        listening.store(true, Ordering::Release);
        async move {
            let ended = nodes.server.await;
            listening.store(false, Ordering::Release);
            if let Err(error) = ended {
                log::error!(error:% = error; "the port of the nodes closed by itself");
            }
        }
    });
    actix_rt::spawn(joins);
    log::info!(nodes:% = nodes_at, certificates:% = joins_at, admin:? = admin.addresses; "skep-cloud serves");

    systemd::ready();
    let patience = Patience::new(&config.supervision.policy());
    let watch = actix_rt::spawn(systemd::watch(registry.clone(), patience.clone(), status_line(hub.clone(), registry.clone())));
    let mut reload = Reload::new(config, mail, hub.clone(), running.clone(), patience, log, reread);

    let mut escalation = std::pin::pin!(escalation);
    let end = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok("SIGTERM"),
            _ = interrupt.recv() => break Ok("SIGINT"),
            _ = hangup.recv() => reload.now(),
            why = &mut escalation => {
                break Err(Exit::Supervision(format!("supervision gave up: {}", why.as_deref().unwrap_or("the supervisor ended"))));
            }
            () = ended(api.as_ref()) => break Err(Exit::Supervision("the embedded API ended by itself, its log says why".to_owned())),
        }
    };
    watch.abort();
    systemd::stopping();
    if let Ok(signal) = end {
        log::info!(signal = signal; "stopping");
    }

    let stop = async {
        hub.close_all();
        tokio::join!(joins_handle.stop(true), nodes_handle.stop(true));
        running.shutdown().await;
        admin.stop().await;
        if let Some(api) = api {
            api.stop().await;
        }
    };
    let again = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = stop => {
            quarantine.flush();
            log::info!("stopped");
        }
        () = again => log::warn!("second signal: ending at once, what is queued is lost"),
    }
    end.map(|_| ())
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

fn admin_settings(
    config: &CloudConfig,
    hub: Arc<Hub>,
    listening: Arc<AtomicBool>,
    api: modules::Api,
    commits: Option<Arc<Commits>>,
    log: LogControl,
) -> Result<admin::AdminConfig, Exit> {
    let checks = move || {
        let listener = if listening.load(Ordering::Acquire) { Ok(()) } else { Err("the port of the nodes is not open".to_owned()) };
        vec![Check::ready("listener", listener), Check::ready("api", api.check())]
    };
    Ok(admin::AdminConfig {
        listen: vec![config.admin_address()],
        read_only: Vec::new(),
        hosts: config.admin.hosts.clone(),
        access: config.admin.access().map_err(|error| unsettled(chain(&error)))?,
        title: "skep-cloud".to_owned(),
        prefix: "skep_cloud",
        extra: Arc::new(move || {
            let mut all = metrics(&hub.totals());
            all.extend(commits.iter().flat_map(|commits| store_metrics(commits)));
            all
        }),
        checks: Arc::new(checks),
        fault_injection: config.admin.fault_injection,
        log: Some(log),
        routes: |_| {},
        data: Arc::new(|_| {}),
    })
}

/// How things stand, in one line for systemd.
fn status_line(hub: Arc<Hub>, registry: Registry) -> impl Fn() -> String {
    move || {
        let totals = hub.totals();
        let views = registry.views();
        let mut line = format!("{}; {}", systemd::actors_up(&views), systemd::count(totals.connected, "node connected", "nodes connected"));
        let in_quarantine: usize = views.iter().map(|view| view.in_quarantine).sum();
        if in_quarantine > 0 {
            line += &format!("; {in_quarantine} in quarantine");
        }
        line
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
        Metric::counter("answers_unmatched_total", "Acknowledgements and refusals of nothing that was on its way.", totals.unmatched),
        Metric::counter("frames_garbage_total", "Frames of nodes that were no message.", totals.garbage),
        Metric::counter("outbox_full_total", "Messages that found the outbox of their node full.", totals.outbox_full),
        Metric::counter("digests_total", "Times that a node said what it holds.", totals.digests),
        Metric::counter("digests_refused_total", "Digests, or parts of one, that were not taken.", totals.digests_refused),
        Metric::counter(
            "sessions_refused_total",
            "Connections refused for the limit, a certificate, path or header.",
            totals.refused_full + totals.refused_identity,
        ),
        Metric::counter("uploads_dropped_total", "Uploads of devices, which nothing takes yet.", totals.uploads_dropped),
        Metric::counter("answers_dropped_total", "Answers dropped because too many waited.", totals.answers_dropped),
    ]
}

/// Of the embedded API; beside a cluster there is no store.
fn store_metrics(commits: &Commits) -> [Metric; 3] {
    let seconds = commits.total().as_secs_f64();
    [
        Metric::counter("store_commits_total", "Transactions that became durable.", commits.count()),
        Metric { kind: "counter", ..Metric::gauge("store_commit_seconds_total", "Time spent in COMMIT.", seconds) },
        Metric::gauge("store_commit_seconds_max", "Longest COMMIT.", commits.longest().as_secs_f64()),
    ]
}
