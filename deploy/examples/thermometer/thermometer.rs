//! A small MQTT device, as a device author would write one: it reports a property of its twin and follows the expected value.
//!
//! It reads its configuration from the file that the Pod mounts from a ConfigMap, publishes
//! `$hw/events/device/<device>/twin/update` every period, and takes the value that `…/twin/update/delta` asks for.
//! SIGTERM ends it at once with exit code 0: what it had to say was published.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use paho_mqtt as mqtt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

/// Where the Pod mounts the ConfigMap; the first argument names another file.
const CONFIG_PATH: &str = "/etc/thermometer/thermometer.yaml";
const CONFIG_BYTES_MAX: u64 = 64 * 1024;
/// A broker that is away is tried again after this long, doubled up to the maximum.
const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Messages that may wait for us before the broker's next ones are dropped.
const INBOUND_MAX: usize = 64;

/// The file in the ConfigMap.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The edge's broker, `tcp://host:port`.
    broker: String,
    /// Name of the Device object, in the namespace `default`.
    device: String,
    /// The twin property that this program reports and follows.
    property: String,
    /// What it reports until a value is asked of it; a string, as every twin value is.
    value: String,
    /// Milliseconds between two reports.
    period_ms: u64,
}

impl Config {
    fn read(path: &str) -> anyhow::Result<Self> {
        let bytes = std::fs::metadata(path).with_context(|| format!("no configuration at `{path}`"))?.len();
        ensure!(bytes <= CONFIG_BYTES_MAX, "`{path}` has {bytes} bytes, more than {CONFIG_BYTES_MAX}");
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`"))?;
        let config: Self = serde_saphyr::from_str(&text).with_context(|| format!("`{path}` is not a thermometer's configuration"))?;
        ensure!(config.period_ms >= 100, "`{path}`: period_ms is {}, and at least 100 is asked", config.period_ms);
        Ok(config)
    }

    /// `$hw/events/device/<device>/twin/<suffix>` (manual ch. 17.1).
    fn topic(&self, suffix: &str) -> String {
        format!("$hw/events/device/{}/twin/{suffix}", self.device)
    }
}

/// The simulated instrument: its value is what was last asked of it.
struct Thermometer {
    config: Config,
    value: String,
    reports: u64,
}

impl Thermometer {
    fn report(&mut self) -> mqtt::Message {
        self.reports += 1;
        let body = json!({
            "event_id": format!("{}-{}", self.config.device, self.reports),
            "timestamp": now_ms(),
            "twin": { &self.config.property: { "actual": { "value": self.value } } },
        });
        mqtt::Message::new(self.config.topic("update"), body.to_string(), mqtt::QOS_1)
    }

    /// Takes over the value a delta asks for. True when there is something new to report.
    fn follow(&mut self, delta: &Value) -> bool {
        let Some(asked) = delta["delta"][&self.config.property].as_str() else {
            return false;
        };
        if asked == self.value {
            return false;
        }
        log::info!(from = self.value.as_str(), to = asked; "following the expected value");
        self.value = asked.to_owned();
        true
    }

    /// One connection's life. Ends when the broker is lost.
    async fn serve(
        &mut self,
        client: &mqtt::AsyncClient,
        connect: mqtt::ConnectOptions,
        inbound: &mqtt::AsyncReceiver<Option<mqtt::Message>>,
    ) -> mqtt::Result<()> {
        client.connect(connect).await?;
        log::info!("connected");
        let (delta, result) = (self.config.topic("update/delta"), self.config.topic("update/result"));
        client.subscribe_many_same_qos(&[&delta, &result], mqtt::QOS_1).await?;
        let mut period = tokio::time::interval(Duration::from_millis(self.config.period_ms));
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_refusal = String::from("unknown");
        loop {
            tokio::select! {
                _ = period.tick() => { client.publish(self.report()).await?; }
                heard = inbound.recv() => {
                    // `None` in the stream is paho's word for a lost connection.
                    let Ok(Some(message)) = heard else { return Ok(()) };
                    let Ok(body) = serde_json::from_slice::<Value>(message.payload()) else {
                        log::warn!(topic = message.topic(); "not JSON");
                        continue;
                    };
                    if message.topic() == result {
                        heard_result(&body, &mut last_refusal);
                    } else if self.follow(&body) {
                        client.publish(self.report()).await?;
                    }
                }
            }
        }
    }
}

/// What the edge said to a report. A refusal is told when its reason changes, not once per period.
fn heard_result(result: &Value, last_refusal: &mut String) {
    let reason = match result.get("code") {
        Some(code) => format!("{code}: {}", result["reason"].as_str().unwrap_or("no reason")),
        None => String::new(),
    };
    if reason == *last_refusal {
        return;
    }
    if reason.is_empty() {
        log::info!("reports are accepted");
    } else {
        log::warn!(reason = reason.as_str(); "report was refused");
    }
    *last_refusal = reason;
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

async fn run() -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let config = Config::read(&std::env::args().nth(1).unwrap_or_else(|| CONFIG_PATH.to_owned()))?;
    log::info!(broker = config.broker.as_str(), device = config.device.as_str(), value = config.value.as_str(); "thermometer starts");
    let options = mqtt::CreateOptionsBuilder::new()
        .server_uri(&config.broker)
        // Unique, so that two of them do not take the connection from each other for ever.
        .client_id(format!("{}-{:x}", config.device, now_ms()))
        .persistence(mqtt::PersistenceType::None)
        .finalize();
    let mut client = mqtt::AsyncClient::new(options).context("no MQTT client for this broker address")?;
    let inbound = client.get_stream(INBOUND_MAX);
    let connect = mqtt::ConnectOptionsBuilder::new()
        .keep_alive_interval(Duration::from_secs(10))
        .connect_timeout(Duration::from_secs(3))
        .clean_session(true)
        .finalize();
    let mut thermometer = Thermometer { value: config.value.clone(), config, reports: 0 };
    let mut retry = RETRY_INITIAL;
    loop {
        let began = Instant::now();
        // A stop may come at any moment, also while a report waits for a broker that does not answer.
        let lost = tokio::select! {
            _ = stop.recv() => break,
            end = thermometer.serve(&client, connect.clone(), &inbound) => end,
        };
        if began.elapsed() > RETRY_MAX {
            retry = RETRY_INITIAL;
        }
        let reason = lost.map_or_else(|error| error.to_string(), |()| "connection lost".to_owned());
        log::warn!(reason = reason.as_str(), retry_ms = retry.as_millis() as u64; "no broker");
        tokio::select! {
            _ = stop.recv() => break,
            () = tokio::time::sleep(retry) => {}
        }
        retry = (retry * 2).min(RETRY_MAX);
    }
    log::info!(reports = thermometer.reports; "told to stop");
    if client.is_connected() {
        client.disconnect_after(Duration::from_secs(1)).await.context("the broker did not take the farewell")?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::from(78)
        }
    }
}
