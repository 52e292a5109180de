//! tokio-uring over a TCP stream, and a `BaseProducer` polled by a thread.
//!
//! On purpose the way that such a server is first written: one loop that has one accept in flight and tries
//! again at once after an error, a task for each connection, and buffers that go to the ring and come back.
//! What becomes of it in a storm of connections is what the study asks; `--accept-errors` changes one thing.

use std::io;
use std::net;
use std::sync::Arc;

use peer::http;
use peer::kafka::Deliveries;
use peer::process;
use peer::settings::AcceptErrors;
use peer::tcp;
use tokio::time::sleep;
use tokio_uring::Runtime;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::{TcpListener, TcpStream};

fn main() {
    tcp::run(AcceptErrors::Retry, serve)
}

fn serve(
    home: usize,
    listener: net::TcpListener,
    deliveries: Arc<Deliveries>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    // Not `start`, which panics where the kernel refuses io_uring.
    let runtime = Runtime::new(&tokio_uring::builder())
        .map_err(|error| io::Error::new(error.kind(), format!("io_uring: {error}")))?;
    runtime.block_on(accept(home, listener, deliveries, accept_errors))
}

async fn accept(
    home: usize,
    listener: net::TcpListener,
    deliveries: Arc<Deliveries>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener);
    tokio_uring::spawn(Arc::clone(&deliveries).settle(home));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                process::accepted();
                tokio_uring::spawn(converse(stream, home, Arc::clone(&deliveries)));
            }
            Err(error) => process::accept_failed(&error, accept_errors, sleep).await,
        }
    }
}

/// One connection; an error is its client's end of it.
async fn converse(stream: TcpStream, home: usize, deliveries: Arc<Deliveries>) -> io::Result<()> {
    let mut bytes: Vec<u8> = Vec::with_capacity(http::READ_BYTES);
    let mut answer: Vec<u8> = Vec::new();
    loop {
        let request = loop {
            match http::read(&bytes) {
                Ok(Some(request)) => break request,
                Ok(None) => {}
                Err(status) => {
                    http::refuse(&mut answer, status);
                    process::answered(status);
                    return stream.write_all(answer).await.0;
                }
            }
            bytes.reserve(http::READ_BYTES);
            let filled = bytes.len();
            let (result, back) = stream.read(bytes.slice(filled..)).await;
            bytes = back.into_inner();
            if result? == 0 {
                return Ok(());
            }
        };
        let outcome = deliveries.produce(home, request.content(&bytes), sleep).await;
        http::write(&mut answer, outcome.status(), &outcome.content(deliveries.topic()), request.keep_alive);
        process::answered(outcome.status());
        let (result, back) = stream.write_all(answer).await;
        answer = back;
        result?;
        bytes.drain(..request.end);
        if !request.keep_alive {
            return Ok(());
        }
    }
}
