//! `skep-edge exec`: a program in a container, through Docker's socket.

use std::io::{self, Read, Write};
use std::time::Duration;

use clap::Args;
use containers_api::conn::TtyChunk;
use containers_api::conn::hyper::{Body, Client, Request};
use docker_api::opts::{ExecCreateOpts, ExecStartOpts};
use docker_api::{Docker, Exec};
use futures_util::{AsyncWriteExt as _, Stream, StreamExt as _};
use hyperlocal::UnixConnector;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::client::pod_list;
use super::logs::default_container;
use super::terminal::{self, Raw};
use super::{ConsoleError, NAMESPACE_DEFAULT, Place, name_of, note, plain};
use crate::config::EdgeConfig;
use crate::edged::runtime::docker::DockerRuntime;
use crate::edged::runtime::{ContainerRuntime as _, RuntimeError, Summary, label};

/// Pieces of standard input that wait.
const PIECES_MAX: usize = 4;
/// How often the exit code is asked for after the end: the engine says the end of the output first.
const CODE_TRIES: usize = 100;
const CODE_PAUSE: Duration = Duration::from_millis(50);

/// How long the daemon is waited for, which knows the pod's object: what it says is a help, not a need.
const DAEMON_LIMIT: Duration = Duration::from_secs(2);

/// A shell's code for a program that cannot be run.
const CANNOT_START: u8 = 126;

/// Arguments of `skep-edge exec`.
#[derive(Clone, Debug, Default, Args)]
pub struct ExecArgs {
    /// The pod.
    pub pod: String,
    /// Its namespace.
    #[arg(short, long, value_name = "NAMESPACE", default_value = NAMESPACE_DEFAULT)]
    pub namespace: String,
    /// Which container; where several run and the daemon answers the one that kubectl takes, too.
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Hand standard input on.
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the program a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Program and arguments; no shell.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Where the daemon's configuration is: it names Docker's socket and the node.
    #[command(flatten)]
    pub place: Place,
}

/// The container that is meant, out of all that carry the pod's labels: `default` where none is named and several run.
///
/// An earlier pod of the same name may still be ending; the one that was made last is meant.
///
/// # Errors
/// `NotFound`, with what there is.
pub fn choose(args: &ExecArgs, found: &[Summary], default: Option<&str>) -> Result<String, ConsoleError> {
    let name = |one: &Summary| one.labels.get(label::CONTAINER).cloned().unwrap_or_default();
    let pod = format!("{}/{}", args.namespace, args.pod);
    let newest = found.iter().max_by_key(|one| one.created).and_then(|one| one.labels.get(label::POD_UID));
    let mut running: Vec<(String, &str)> = found
        .iter()
        .filter(|one| one.state == "running" && one.labels.get(label::POD_UID) == newest)
        .map(|one| (name(one), one.id.as_str()))
        .filter(|(name, _)| name != label::SANDBOX_NAME)
        .collect();
    running.sort();
    let names = running.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let not_found = |text: String| Err(ConsoleError::NotFound(plain(&text)));
    match (&args.container, running.as_slice()) {
        (_, []) if found.is_empty() => not_found(format!(
            "there is no container of pod {pod} on this node; see `skep-edge pods`, and name the daemon's configuration with --config"
        )),
        (_, []) => not_found(format!("no container of pod {pod} runs; `skep-edge logs` may say why")),
        (Some(wanted), _) => match running.iter().find(|(name, _)| name == wanted) {
            Some((_, id)) => Ok((*id).to_owned()),
            None => not_found(format!("pod {pod} has no running container `{wanted}`; there are: {names}")),
        },
        (None, [(_, id)]) => Ok((*id).to_owned()),
        (None, _) => match running.iter().find(|(name, _)| Some(name.as_str()) == default) {
            Some((name, id)) => {
                note(&format!("container {name} of {names}; -c names another one"));
                Ok((*id).to_owned())
            }
            None => not_found(format!("pod {pod} has several containers: name one of {names} with -c")),
        },
    }
}

fn engine_error(address: &str, error: &dyn std::fmt::Display) -> ConsoleError {
    let said = plain(&error.to_string());
    let advice = if said.contains("Permission denied") || said.contains("os error 13") {
        format!("; call it as root, or as a member of the group that owns {address}")
    } else {
        String::new()
    };
    ConsoleError::Engine(format!("{said}{advice}"))
}

/// Runs the program and gives its exit code.
///
/// # Errors
/// See [`ConsoleError`].
pub async fn exec(args: &ExecArgs, config: &EdgeConfig) -> Result<u8, ConsoleError> {
    let address = config.edged.docker_address.as_str();
    if args.tty && !(args.stdin && terminal::is_terminal()) {
        return Err(ConsoleError::NoTerminal);
    }
    let refused = |error: RuntimeError| engine_error(address, &error);
    let runtime = DockerRuntime::new(address).map_err(refused)?;
    let node = config.node().to_string();
    let labels = [(label::NODE, node.as_str()), (label::POD_NAMESPACE, args.namespace.as_str()), (label::POD_NAME, args.pod.as_str())];
    let found = runtime.list(&labels).await.map_err(refused)?;
    let default = if args.container.is_none() { default_of(args, config).await } else { None };
    let id = choose(args, &found, default.as_deref())?;
    let socket = address.strip_prefix("unix://").unwrap_or(address);
    let input = args.stdin.then(read_stdin);
    run(socket, &id, args, input, &mut io::stdout(), &mut io::stderr()).await
}

/// The container that kubectl would take, as far as the daemon says it: `exec` works without it, too.
async fn default_of(args: &ExecArgs, config: &EdgeConfig) -> Option<String> {
    let list = tokio::time::timeout(DAEMON_LIMIT, pod_list(config.read_only()?)).await.ok()?.ok()?;
    let pod = list["items"].as_array()?.iter().find(|pod| name_of(pod) == (args.namespace.as_str(), args.pod.as_str()))?;
    default_container(pod).map(|(chosen, _)| chosen)
}

/// Standard input in pieces, read by a thread that ends with the process: a read of a terminal cannot be called off.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(PIECES_MAX);
    std::thread::spawn(move || {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = io::stdin().read(&mut piece) {
            if send.blocking_send(piece[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

/// Runs the program in the container of this id.
///
/// # Errors
/// `Engine`, `Stream`.
pub(super) async fn run(
    socket: &str,
    id: &str,
    args: &ExecArgs,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<u8, ConsoleError> {
    let failed = |error: docker_api::Error| engine_error(socket, &error);
    let docker = Docker::unix(socket);
    let opts = ExecCreateOpts::builder().command(&args.command).attach_stdin(input.is_some()).attach_stdout(true).attach_stderr(true).tty(args.tty);
    let exec = Exec::create(docker, id, &opts.build()).await.map_err(failed)?;
    let exec_id = exec.inspect().await.map_err(failed)?.id.unwrap_or_default();
    let (output, mut writer) = match exec.start(&ExecStartOpts::builder().tty(args.tty).build()).await {
        Ok(started) => started.split(),
        // There is no such program, or it may not be run: the engine says which.
        Err(docker_api::Error::Fault { code, message }) if code.as_u16() == 400 => {
            let text = format!("{}\n", plain(message.trim()));
            err.write_all(text.as_bytes()).map_err(|error| ConsoleError::Stream("write the output", error))?;
            return Ok(exit_code(&exec).await.ok().filter(|code| ![0, 255].contains(code)).unwrap_or(CANNOT_START));
        }
        Err(error) => return Err(failed(error)),
    };
    let listen = |kind| signal(kind).map_err(|error| ConsoleError::Stream("listen for signals", error));
    let (mut terminate, mut hangup, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?, listen(SignalKind::interrupt())?);
    let resized = listen(SignalKind::window_change())?;
    let raw = args.tty.then(Raw::begin).transpose().map_err(|error| ConsoleError::Stream("use the terminal", error))?;
    // Beside each other: a program that writes before it has read all must not wait for us, nor we for it.
    let feed = async {
        if let Some(mut input) = input {
            while let Some(piece) = input.recv().await {
                if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
                    break;
                }
            }
            // The program sees the end of its input.
            let _ = writer.close().await;
        }
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        ended = print(output, out, err) => ended.map(|()| None),
        () = feed => Ok(None),
        () = follow_size(socket, &exec_id, args.tty, resized) => Ok(None),
        _ = terminate.recv() => Ok(Some(128 + 15)),
        _ = hangup.recv() => Ok(Some(128 + 1)),
        _ = interrupt.recv() => Ok(Some(128 + 2)),
    };
    drop(raw);
    match ended? {
        Some(code) => Ok(code),
        None => exit_code(&exec).await.map_err(failed),
    }
}

async fn print(
    mut output: impl Stream<Item = containers_api::conn::Result<TtyChunk>> + Unpin,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), ConsoleError> {
    while let Some(chunk) = output.next().await {
        let written = match chunk.map_err(|error| ConsoleError::Engine(plain(&error.to_string())))? {
            TtyChunk::StdErr(bytes) => err.write_all(&bytes).and_then(|()| err.flush()),
            TtyChunk::StdOut(bytes) | TtyChunk::StdIn(bytes) => out.write_all(&bytes).and_then(|()| out.flush()),
        };
        written.map_err(|error| ConsoleError::Stream("write the output", error))?;
    }
    Ok(())
}

/// Tells the program how large its terminal is, at first and at each change. Never ends; a size that is not told is no harm.
async fn follow_size(socket: &str, exec: &str, is_terminal: bool, mut resized: Signal) {
    if is_terminal {
        tell_size(socket, exec).await;
        while resized.recv().await.is_some() {
            tell_size(socket, exec).await;
        }
    }
    std::future::pending::<()>().await;
}

async fn tell_size(socket: &str, exec: &str) {
    let Some((rows, columns)) = terminal::size() else { return };
    // The crate puts the numbers into the body, where the engine does not look.
    let uri = hyperlocal::Uri::new(socket, &format!("/exec/{exec}/resize?h={rows}&w={columns}"));
    if let Ok(request) = Request::post(uri).body(Body::empty()) {
        let _ = Client::builder().build::<_, Body>(UnixConnector).request(request).await;
    }
}

async fn exit_code(exec: &Exec) -> docker_api::Result<u8> {
    for _ in 0..CODE_TRIES {
        let found = exec.inspect().await?;
        if found.running != Some(true) {
            let code = found.exit_code.map_or(255, |code| code as i64);
            return Ok(u8::try_from(code).unwrap_or(255));
        }
        tokio::time::sleep(CODE_PAUSE).await;
    }
    // Its output has ended, and it goes on in the background.
    Ok(0)
}
