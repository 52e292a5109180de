//! Tokio, Hyper 1 and rdkafka's `FutureProducer`: what its users are shown first.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use peer::http::{CONTENT_BYTES, refusal};
use peer::kafka::{Outcome, Room, config, is_full};
use peer::process;
use peer::settings::{AcceptErrors, Settings};
use peer::statistics::Statistics;
use rdkafka::producer::future_producer::{Delivery, OwnedDeliveryResult};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::time::sleep;

fn main() {
    let settings = Settings::parse(AcceptErrors::Pause);
    if settings.poll.is_some() {
        eprintln!("--poll-ms: a FutureProducer is polled by a thread of its own");
        std::process::exit(2);
    }
    let producer: FutureProducer<Statistics> = config(&settings)
        .create_with_context(Statistics::open(&settings))
        .unwrap_or_else(|error| process::fail(&error));
    let (threads, accept_errors) = (settings.threads, settings.accept_errors);
    let application = Arc::new(Application {
        producer,
        topic: settings.topic.clone(),
        queued: settings.queued,
        unreported: Mutex::default(),
    });
    let served = Arc::clone(&application);
    process::run(
        &settings,
        1,
        move |_, listener| serve(listener, threads, Arc::clone(&served), accept_errors),
        move || application.left(),
    )
}

fn serve(
    listener: net::TcpListener,
    threads: usize,
    application: Arc<Application>,
    accept_errors: AcceptErrors,
) -> io::Result<()> {
    // With one thread nothing is to be shared between threads.
    let mut builder = match threads {
        1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    let runtime = builder.enable_all().build()?;
    runtime.block_on(async move {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        // Of its own, since `block_on` runs what it is given outside the workers.
        tokio::spawn(accept(listener, application, accept_errors)).await.map_err(io::Error::other)
    })
}

async fn accept(listener: TcpListener, application: Arc<Application>, accept_errors: AcceptErrors) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                process::accepted();
                tokio::spawn(converse(stream, Arc::clone(&application)));
            }
            Err(error) => process::accept_failed(&error, accept_errors, sleep).await,
        }
    }
}

/// One connection; an error is its client's end of it.
async fn converse(stream: TcpStream, application: Arc<Application>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let application = Arc::clone(&application);
        async move { Ok::<_, Infallible>(application.answer(request).await) }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

struct Application {
    producer: FutureProducer<Statistics>,
    topic: String,
    queued: bool,
    /// Records whose reports nobody waits for, about in the order of their production: for the count at the end.
    unreported: Mutex<VecDeque<DeliveryFuture>>,
}

/// A record whose request waits for the report, and may end before it: Hyper drops it with its client.
struct Waiting<'a> {
    application: &'a Application,
    delivery: Option<DeliveryFuture>,
}

impl Waiting<'_> {
    async fn report(&mut self) -> Option<Delivery> {
        let report = self.delivery.as_mut()?.await;
        self.delivery = None;
        count(&report);
        report.ok()?.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.delivery.is_some() {
            self.application.settle(self.delivery.take());
        }
    }
}

impl Application {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::POST {
            let mut refused = refuse(StatusCode::METHOD_NOT_ALLOWED);
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return refused;
        }
        let value = match read(request.into_body()).await {
            Ok(value) => value,
            Err(status) => return refuse(status),
        };
        let outcome = self.produce(&value).await;
        let status = StatusCode::from_u16(outcome.status()).expect("an outcome's status is one");
        let content = match outcome.content(&self.topic) {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => Bytes::from(bytes),
        };
        response(status, content)
    }

    async fn produce(&self, value: &[u8]) -> Outcome {
        if process::stopping() {
            return Outcome::Full;
        }
        let mut record = FutureRecord::<(), [u8]>::to(&self.topic).payload(value);
        let mut room = Room::default();
        // Not `send`, which waits for room and report in one, and so cannot answer what is only queued.
        let delivery = loop {
            match self.producer.send_result(record) {
                Ok(delivery) => break delivery,
                Err((error, _)) if !is_full(&error) => return Outcome::Failed,
                Err((_, returned)) => record = returned,
            }
            let Some(pause) = room.wait() else {
                return Outcome::Full;
            };
            sleep(pause).await;
        };
        if self.queued {
            self.settle(Some(delivery));
            return Outcome::Queued;
        }
        let mut waiting = Waiting { application: self, delivery: Some(delivery) };
        match waiting.report().await {
            Some(delivery) => Outcome::Delivered { partition: delivery.partition, offset: delivery.offset },
            None => Outcome::Failed,
        }
    }

    /// Count the reports that have come, from the oldest on, without a task that would be woken by each; how
    /// many are still to come.
    fn settle(&self, newest: Option<DeliveryFuture>) -> usize {
        let mut unreported = self.unreported.lock().expect("no thread panics here");
        unreported.extend(newest);
        let mut nobody = Context::from_waker(Waker::noop());
        while let Some(oldest) = unreported.front_mut() {
            let Poll::Ready(report) = Pin::new(oldest).poll(&mut nobody) else {
                break;
            };
            count(&report);
            unreported.pop_front();
        }
        unreported.len()
    }

    fn left(&self) -> usize {
        self.settle(None) + usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }
}

/// The content, or the status to refuse it with.
async fn read(body: Incoming) -> Result<Bytes, StatusCode> {
    // `Limited` alone would first read as much as the limit.
    if body.size_hint().lower() > CONTENT_BYTES as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    match Limited::new(body, CONTENT_BYTES).collect().await {
        Ok(content) => Ok(content.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}

fn count<E>(report: &Result<OwnedDeliveryResult, E>) {
    process::reported(matches!(report, Ok(Ok(_))));
}

fn refuse(status: StatusCode) -> Response<Full<Bytes>> {
    response(status, refusal(status.as_u16()).into())
}

fn response(status: StatusCode, content: Bytes) -> Response<Full<Bytes>> {
    process::answered(status.as_u16());
    let mut response = Response::new(Full::new(content));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
