//! The process: its listening sockets and threads, what it counts, and its end.

use std::fmt::Display;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::exit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::settings::{AcceptErrors, Settings};

/// As the peers in Python have it; the system caps it at net.core.somaxconn.
const BACKLOG: u32 = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// More than message.timeout.ms and the second that librdkafka may notice it late.
const DRAIN: Duration = Duration::from_secs(12);

static STOPPING: AtomicBool = AtomicBool::new(false);
static ANSWERED: [AtomicU64; 600] = [const { AtomicU64::new(0) }; 600];
static DELIVERED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static ACCEPTED: AtomicU64 = AtomicU64::new(0);
static ACCEPT_ERRORS: AtomicU64 = AtomicU64::new(0);

pub fn answered(status: u16) {
    ANSWERED[usize::from(status)].fetch_add(1, Relaxed);
}

/// A record's report came.
pub fn reported(delivered: bool) {
    let counter = if delivered { &DELIVERED } else { &FAILED };
    counter.fetch_add(1, Relaxed);
}

pub fn accepted() {
    ACCEPTED.fetch_add(1, Relaxed);
}

/// Count an error of the accept loop, and do what the settings have for it.
pub async fn accept_failed<F>(error: &io::Error, what: AcceptErrors, sleep: impl Fn(Duration) -> F)
where
    F: Future<Output = ()>,
{
    if ACCEPT_ERRORS.fetch_add(1, Relaxed) == 0 {
        eprintln!("accept: {error}");
    }
    match what {
        AcceptErrors::Retry => {}
        AcceptErrors::Pause => sleep(ACCEPT_PAUSE).await,
        AcceptErrors::End => pending().await,
    }
}

/// Whether a signal has come: from then on nothing is handed to Kafka.
pub fn stopping() -> bool {
    STOPPING.load(Relaxed)
}

pub fn fail(error: &dyn Display) -> ! {
    eprintln!("{error}");
    exit(1)
}

/// Serve in so many threads, each with a listening socket of its own on the same port, until SIGTERM or SIGINT;
/// then wait until none of the records is `left`, and print what was counted as one line of JSON.
pub fn run<S, L>(settings: &Settings, threads: usize, serve: S, left: L) -> !
where
    S: Fn(usize, TcpListener) -> io::Result<()> + Clone + Send + 'static,
    L: Fn() -> usize,
{
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| fail(&error));
    match runtime.block_on(until_stopped(settings.address, threads, serve, left)) {
        Ok(()) => {
            println!("{}", counts());
            exit(0)
        }
        Err(error) => fail(&error),
    }
}

async fn until_stopped<S, L>(address: SocketAddr, threads: usize, serve: S, left: L) -> io::Result<()>
where
    S: Fn(usize, TcpListener) -> io::Result<()> + Clone + Send + 'static,
    L: Fn() -> usize,
{
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    for home in 0..threads {
        let listener = listen(address, threads > 1)?;
        let serve = serve.clone();
        thread::Builder::new().name(format!("serve-{home}")).spawn(move || {
            if let Err(error) = serve(home, listener) {
                fail(&error);
            }
        })?;
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    STOPPING.store(true, Relaxed);
    let deadline = Instant::now() + DRAIN;
    while left() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The last reports are still to become answers.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// A blocking socket, whose connections inherit TCP_NODELAY from it: what every runtime here can take over.
fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // Only for threads: a process that was forgotten must not get half of another's connections.
    socket.set_reuseport(reuse_port)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?.into_std()?;
    listener.set_nonblocking(false)?;
    Ok(listener)
}

fn counts() -> String {
    let answered: Vec<String> = ANSWERED
        .iter()
        .enumerate()
        .map(|(status, count)| (status, count.load(Relaxed)))
        .filter(|(_, count)| *count > 0)
        .map(|(status, count)| format!(r#""{status}":{count}"#))
        .collect();
    format!(
        r#"{{"answered":{{{}}},"delivered":{},"failed":{},"accepted":{},"accept_errors":{}}}"#,
        answered.join(","),
        DELIVERED.load(Relaxed),
        FAILED.load(Relaxed),
        ACCEPTED.load(Relaxed),
        ACCEPT_ERRORS.load(Relaxed),
    )
}
