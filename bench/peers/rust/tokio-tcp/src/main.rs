//! Tokio over a plain TCP stream, and a `BaseProducer` polled by a thread.
//!
//! One current-thread runtime for each thread, as servers that want the most of Tokio have it: no task moves
//! between threads, and a report wakes its request without crossing to another.

use std::io;
use std::net;
use std::sync::Arc;

use peer::http;
use peer::kafka::Deliveries;
use peer::process;
use peer::settings::AcceptErrors;
use peer::tcp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::time::sleep;

fn main() {
    tcp::run(AcceptErrors::Pause, serve)
}

fn serve(
    home: usize,
    listener: net::TcpListener,
    deliveries: Arc<Deliveries>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(home, listener, deliveries, accept_errors))
}

async fn accept(
    home: usize,
    listener: net::TcpListener,
    deliveries: Arc<Deliveries>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(Arc::clone(&deliveries).settle(home));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                process::accepted();
                tokio::spawn(converse(stream, home, Arc::clone(&deliveries)));
            }
            Err(error) => process::accept_failed(&error, accept_errors, sleep).await,
        }
    }
}

/// One connection; an error is its client's end of it.
async fn converse(mut stream: TcpStream, home: usize, deliveries: Arc<Deliveries>) -> io::Result<()> {
    let mut bytes: Vec<u8> = Vec::with_capacity(http::READ_BYTES);
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
            bytes.reserve(http::READ_BYTES);
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
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
