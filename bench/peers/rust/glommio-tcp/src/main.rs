//! Glommio over a TCP stream, and a `BaseProducer` polled by a thread: one executor for each thread, bound to
//! no core, since the measurement binds the process.

use std::fmt::Display;
use std::io;
use std::net;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::sync::Arc;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use io_uring::IoUring;
use peer::http;
use peer::kafka::Deliveries;
use peer::process;
use peer::settings::AcceptErrors;
use peer::tcp;

fn main() {
    tcp::run(AcceptErrors::Pause, serve)
}

fn serve(
    home: usize,
    listener: net::TcpListener,
    deliveries: Arc<Deliveries>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    let refused = |error: &dyn Display| io::Error::other(format!("io_uring: {error}"));
    // Glommio panics where the kernel refuses it, and speaks of its age.
    IoUring::new(8).map_err(|error| refused(&error))?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().map_err(|error| refused(&error))?;
    executor.run(accept(home, listener, deliveries, accept_errors))
}

async fn accept(
    home: usize,
    listener: net::TcpListener,
    deliveries: Arc<Deliveries>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    // Glommio's own `bind` leaves SO_REUSEADDR out, and a port would be lost for the next measurement.
    // SAFETY: the descriptor is a listening socket, and nobody else's from here on.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    glommio::spawn_local(Arc::clone(&deliveries).settle(home)).detach();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                process::accepted();
                glommio::spawn_local(converse(stream, home, Arc::clone(&deliveries))).detach();
            }
            Err(error) => process::accept_failed(&io::Error::from(error), accept_errors, sleep).await,
        }
    }
}

/// One connection; an error is its client's end of it.
async fn converse(mut stream: TcpStream, home: usize, deliveries: Arc<Deliveries>) -> io::Result<()> {
    let mut bytes: Vec<u8> = Vec::with_capacity(http::READ_BYTES);
    let mut part = vec![0_u8; http::READ_BYTES];
    let mut answer = Vec::new();
    loop {
        let request = loop {
            match http::read(&bytes) {
                Ok(Some(request)) => break request,
                Ok(None) => {}
                Err(status) => {
                    http::refuse(&mut answer, status);
                    process::answered(status);
                    return stream.write_all(&answer).await;
                }
            }
            let length = stream.read(&mut part).await?;
            if length == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&part[..length]);
        };
        let outcome = deliveries.produce(home, request.content(&bytes), sleep).await;
        http::write(&mut answer, outcome.status(), &outcome.content(deliveries.topic()), request.keep_alive);
        process::answered(outcome.status());
        stream.write_all(&answer).await?;
        bytes.drain(..request.end);
        if !request.keep_alive {
            return Ok(());
        }
    }
}
