//! `skep-cloud`: reads arguments and configuration, sets up the log, runs, and ends with a stated exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use actor::chain;
use admin::exit::{self, Exit};
use admin::status::{Call, Options, Output};
use clap::{Parser, Subcommand};
use skep_cloud::config::{COMMENTED_DEFAULT, CloudConfig, Log};

#[derive(Parser)]
#[command(name = "skep-cloud", version, about = "Kubernetes at the edge: the cloud service")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run {
        #[command(flatten)]
        place: Place,
        /// Where the administrator's kubeconfig for the embedded API is written.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Print the actors and mailboxes of the running daemon, as its admin page shows them.
    Status {
        /// Configuration file that says where the page is; /etc/skep/cloud.yaml when it exists.
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
    /// Print the version.
    Version,
    /// Print the commented default configuration.
    Config,
    /// Print a token with which an edge machine may join (`skep-edge join --token`).
    Token {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
struct Place {
    /// Configuration file; /etc/skep/cloud.yaml when it exists, the defaults otherwise.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of everything that is kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Place {
    fn read(&self) -> Result<CloudConfig, Exit> {
        let mut config = CloudConfig::read(self.config.as_deref(), std::env::vars()).map_err(|error| Exit::Configuration(chain(&error)))?;
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        config.check().map_err(|why| Exit::Configuration(format!("configuration: {why}")))?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { 0 });
        }
    };
    match execute(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // Where the configuration itself is wrong there is no log yet.
            log_at("info");
            log::error!(code = exit.code(); "{exit}");
            ExitCode::from(&exit)
        }
    }
}

/// Libraries that name each connection: kept to their warnings, unless `log.level` or `RUST_LOG` has several parts.
const QUIET: &str = "actix_server=warn";

/// The log of a command that runs before, or without, a configuration; once.
fn log_at(level: &str) {
    let _ = Log { level: level.to_owned() }.init(QUIET);
}

#[allow(clippy::print_stdout)] // the commands whose result is text on standard output
fn execute(command: Command) -> Result<(), Exit> {
    match command {
        Command::Run { place, kubeconfig } => {
            let reread = move || {
                let mut config = place.read()?;
                config.embedded.kubeconfig = kubeconfig.clone().or(config.embedded.kubeconfig);
                Ok(config)
            };
            let config = reread()?;
            let log = config.log.init(QUIET).map_err(|error| Exit::Configuration(chain(&error)))?;
            skep_cloud::wiring::run(config, log, reread)
        }
        Command::Status { config, admin, token_file, cert, key, ca, watch, output } => {
            log_at("warn");
            let certificate = cert.zip(key).zip(ca).map(|((cert, key), ca)| [cert, key, ca]);
            let output = if output == "json" { Output::Json } else { Output::Text };
            let options = Options { watch, output, terminal: false };
            let call = Call { admin, token_file, certificate, options };
            // Whoever names the page need not be able to read the service's configuration.
            let config = match call.admin.is_some() && config.is_none() {
                true => None,
                false => Some(Place { config, data_dir: None }.read()?),
            };
            admin::status::call(&call, config.as_ref().map(|config| &config.admin))
        }
        Command::Version => {
            println!("skep-cloud {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Config => {
            print!("{COMMENTED_DEFAULT}");
            Ok(())
        }
        Command::Token { place } => {
            log_at("info");
            println!("{}", skep_cloud::wiring::token(&place.read()?)?);
            Ok(())
        }
    }
}
