//! `skep-edge`: reads the arguments and carries out the command; each ends with a stated exit code.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use actor::chain;
use admin::exit::{self, Exit};
use admin::status::{Call, Options, Output};
use clap::{Parser, Subcommand};
use skep_edge::config::{DEFAULT_YAML, EdgeConfig};
use skep_edge::console::{self, ConsoleError, ExecArgs, LogsArgs, Place, PodsArgs};
use skep_edge::daemon::{self, end, log_at};
use skep_edge::import::{self, Existing};
use skep_edge::join::{JoinArgs, join};
use skep_edge::mqtt_user::MqttUserArgs;
use skep_edge::store::Damage;

#[derive(Parser)]
#[command(name = "skep-edge", version, about = "Kubernetes at the edge: the daemon of an edge machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon until SIGTERM or SIGINT.
    Run {
        /// Configuration file; /etc/skep/edge.yaml when it exists, the defaults otherwise.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Directory of everything that is kept; wins over the file.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// Get a certificate for this machine from the cloud, with a token that `skep-cloud token` printed.
    Join(JoinArgs),
    /// Take over devices, twins and objects from a database that KubeEdge v0.2 or later wrote. No daemon may use either.
    Import {
        /// The database, e.g. /var/lib/kubeedge/edgecore.db or edge.db. It is not changed.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Configuration file; /etc/skep/edge.yaml when it exists, the defaults otherwise.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Directory of everything that is kept; wins over the file.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Replace what is there already, except properties whose version is newer. Without it, what is there stays.
        #[arg(long)]
        overwrite: bool,
        /// Take what can be read of a damaged database, such as one that was set aside.
        #[arg(long)]
        damaged: bool,
    },
    /// Print the actors and mailboxes of the running daemon, as its admin page shows them.
    Status {
        /// Configuration file that says where the page is; /etc/skep/edge.yaml when it exists.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Address of the page; wins over the configuration.
        #[arg(long, value_name = "HOST:PORT")]
        admin: Option<String>,
        /// File with the page's token; wins over the configuration.
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Your certificate, where the page asks for one (PEM; so are --key and --ca).
        #[arg(long, value_name = "FILE", requires_all = ["key", "ca"])]
        cert: Option<PathBuf>,
        /// Its key.
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
        /// The authority of the page's own certificate.
        #[arg(long, value_name = "FILE", requires = "cert")]
        ca: Option<PathBuf>,
        /// Print it again each second.
        #[arg(long)]
        watch: bool,
        /// `text`, or `json`.
        #[arg(short, long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
        output: String,
    },
    /// Print the pods of this node; asks the running daemon, not the cloud.
    Pods(PodsArgs),
    /// Print what a container of this node wrote; asks the running daemon, not the cloud.
    Logs(LogsArgs),
    /// Run a program in a container of this node: skep-edge exec POD -- COMMAND. Needs the right to use Docker's socket.
    Exec(ExecArgs),
    /// Users of the embedded MQTT broker (`mqtt.internal-users-file`).
    MqttUser(MqttUserArgs),
    /// Print the version.
    Version,
    /// Print the commented default configuration.
    Config,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match arguments.command {
        Command::Run { config, data_dir } => daemon::run(config, data_dir),
        Command::Join(arguments) => join_cloud(&arguments),
        Command::Import { from, config, data_dir, overwrite, damaged } => {
            let existing = if overwrite { Existing::Replace } else { Existing::Keep };
            let damage = if damaged { Damage::Accept } else { Damage::Refuse };
            import_database(&from, config.as_deref(), data_dir, existing, damage)
        }
        Command::Status { config, admin, token_file, cert, key, ca, watch, output } => {
            let certificate = cert.zip(key).zip(ca).map(|((cert, key), ca)| [cert, key, ca]);
            let output = if output == "json" { Output::Json } else { Output::Text };
            let options = Options { watch, output, terminal: false };
            let call = Call { admin, token_file, certificate, options };
            status(&call, config.as_deref())
        }
        Command::Pods(args) => at_console(&args.place, async |config| console::pods(&args, config, &mut io::stdout()).await.map(|()| 0)),
        Command::Logs(args) => at_console(&args.place, async |config| console::logs(&args, config, &mut io::stdout()).await.map(|()| 0)),
        Command::Exec(args) => at_console(&args.place, async |config| console::exec(&args, config).await),
        Command::MqttUser(arguments) => mqtt_user(arguments),
        Command::Version => print(&format!("skep-edge {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Config => print(DEFAULT_YAML),
    }
}

#[allow(clippy::print_stdout, reason = "the command's result is text on standard output")]
fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn import_database(from: &Path, file: Option<&Path>, data_dir: Option<PathBuf>, existing: Existing, damage: Damage) -> ExitCode {
    log_at("warn");
    let config = match EdgeConfig::load(file, data_dir, std::env::vars()) {
        Ok(config) => config,
        Err(error) => return end(&Exit::Configuration(chain(&error))),
    };
    match import::command(&config, from, existing, damage) {
        Ok(report) => print(&format!("imported from {} into {}\n{report}", from.display(), config.database().display())),
        Err(exit) => end(&exit),
    }
}

fn status(call: &Call, file: Option<&Path>) -> ExitCode {
    log_at("warn");
    // Whoever names the page need not be able to read the daemon's configuration.
    let config = match call.admin.is_some() && file.is_none() {
        true => None,
        false => match EdgeConfig::load(file, None, std::env::vars()) {
            Ok(config) => Some(config),
            Err(error) => return end(&Exit::Configuration(chain(&error))),
        },
    };
    match admin::status::call(call, config.as_ref().map(|config| &config.admin)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => end(&exit),
    }
}

/// A command of [`console`], which gives the process's exit code.
fn at_console(place: &Place, command: impl AsyncFnOnce(&EdgeConfig) -> Result<u8, ConsoleError>) -> ExitCode {
    log_at("warn");
    let config = match EdgeConfig::load(place.config.as_deref(), None, std::env::vars()) {
        Ok(config) => config,
        Err(error) => return end(&Exit::Configuration(chain(&error))),
    };
    match actix_rt::System::new().block_on(command(&config)) {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.is_closed_output() => ExitCode::SUCCESS,
        Err(error) => end(&error.exit()),
    }
}

fn mqtt_user(arguments: MqttUserArgs) -> ExitCode {
    log_at("warn");
    let configured = match arguments.names_file() {
        true => None,
        false => match EdgeConfig::load(arguments.config.as_deref(), None, std::env::vars()) {
            Ok(config) => Some(config.mqtt.internal_users_file),
            Err(error) => return end(&Exit::Configuration(chain(&error))),
        },
    };
    match arguments.run(configured) {
        Ok(said) => print(&said),
        Err(error) => end(&Exit::Configuration(chain(&error))),
    }
}

fn join_cloud(arguments: &JoinArgs) -> ExitCode {
    log_at("warn");
    let data_dir = match &arguments.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => match EdgeConfig::load(arguments.config.as_deref(), None, std::env::vars()) {
            Ok(config) => config.data_dir,
            Err(error) => return end(&Exit::Configuration(chain(&error))),
        },
    };
    match actix_rt::System::new().block_on(join(arguments, &data_dir)) {
        Ok(_) => print(&format!("joined as node {}; certificates are in {}\n", arguments.node, data_dir.join("pki").display())),
        Err(error) => {
            log::error!("{}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}
