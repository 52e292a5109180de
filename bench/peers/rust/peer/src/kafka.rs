//! librdkafka: its settings for every peer, and deliveries with a `BaseProducer` for those that poll it by hand.

use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tokio::sync::oneshot;

use crate::process;
use crate::settings::{Profile, Settings};
use crate::statistics::Statistics;

/// How long a request may wait for room in a full queue.
const ROOM: Duration = Duration::from_secs(10);
/// How long to let a full queue drain before the next try.
const ROOM_PAUSE: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(100);

/// What the peers in Python set, so that all ask the same of Kafka.
pub fn config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", settings.brokers.as_str());
    config.set("acks", "all");
    config.set("enable.idempotence", "true");
    config.set("partitioner", "murmur2_random");
    config.set("message.timeout.ms", "8000");
    match settings.profile {
        Profile::Default => {}
        Profile::Tuned => {
            // In place of 5 ms, 10,000 messages a batch, 100,000 messages in the queue and 1 GiB.  batch.size is
            // by default as large as message.max.bytes lets a batch be, and what topics take by default.
            config.set("linger.ms", "1");
            config.set("batch.num.messages", "100000");
            config.set("queue.buffering.max.messages", "1000000");
            config.set("queue.buffering.max.kbytes", "2097152");
        }
        Profile::Old => {
            config.set("batch.num.messages", "1000");
        }
    }
    if settings.statistics.is_some() {
        config.set("statistics.interval.ms", "1000");
    }
    if let Some(linger_ms) = settings.linger_ms {
        config.set("linger.ms", linger_ms.to_string().as_str());
    }
    if let Some(batch_bytes) = settings.batch_bytes {
        config.set("batch.size", batch_bytes.to_string().as_str());
    }
    config
}

/// Where to try again, and until when: a queue that is full is waited for.
#[derive(Default)]
pub struct Room(Option<Instant>);

impl Room {
    /// After a first or further refusal: how long to wait before the next try, or `None` where it is too late.
    pub fn wait(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let until = *self.0.get_or_insert(now + ROOM);
        (now < until).then_some(ROOM_PAUSE)
    }
}

pub fn is_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

/// What has become of a record, which is what its request is answered with.
pub enum Outcome {
    Queued,
    Delivered { partition: i32, offset: i64 },
    Full,
    Failed,
}

/// Partition and offset; none where the record failed.
type Report = Option<(i32, i64)>;

/// What a record takes with it through librdkafka.
pub struct Waiting {
    home: usize,
    request: Option<oneshot::Sender<Report>>,
}

/// The reports for one thread's requests: however many a poll brings, they wake that thread once.  Each oneshot
/// by itself would cost a write to the thread's eventfd for every record.
#[derive(Default)]
struct Inbox(Mutex<Reports>);

#[derive(Default)]
struct Reports {
    reports: Vec<(oneshot::Sender<Report>, Report)>,
    reader: Option<Waker>,
}

impl Inbox {
    fn put(&self, request: oneshot::Sender<Report>, report: Report) {
        let reader = {
            let mut inbox = self.0.lock().expect("no thread panics here");
            inbox.reports.push((request, report));
            inbox.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn take(&self, task: &mut Context<'_>) -> Poll<Vec<(oneshot::Sender<Report>, Report)>> {
        let mut inbox = self.0.lock().expect("no thread panics here");
        if inbox.reports.is_empty() {
            inbox.reader = Some(task.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(mem::take(&mut inbox.reports))
    }
}

pub struct Callbacks {
    inboxes: Arc<[Inbox]>,
    statistics: Statistics,
}

impl ClientContext for Callbacks {
    fn stats_raw(&self, statistics: &[u8]) {
        self.statistics.write(statistics);
    }
}

impl ProducerContext for Callbacks {
    type DeliveryOpaque = Box<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let report = result.as_ref().ok().map(|message| (message.partition(), message.offset()));
        process::reported(report.is_some());
        let Waiting { home, request } = *waiting;
        if let Some(request) = request {
            self.inboxes[home].put(request, report);
        }
    }
}

/// One producer for all threads.
pub struct Deliveries {
    producer: Arc<BaseProducer<Callbacks>>,
    inboxes: Arc<[Inbox]>,
    topic: String,
    queued: bool,
    poll: Option<Duration>,
}

impl Deliveries {
    /// A producer with a thread of its own that polls it.
    ///
    /// A poll in the servers' loops would save that thread, but `BaseProducer::poll` holds its thread for all
    /// of its time: it would have to be a poll of no time at all on a timer, which adds half the timer's
    /// period to every answer, or spins.  `--poll-ms` has one all the same, for what it is worth.
    pub fn open(settings: &Settings) -> Arc<Self> {
        let inboxes: Arc<[Inbox]> = (0..settings.threads).map(|_| Inbox::default()).collect();
        let callbacks =
            Callbacks { inboxes: Arc::clone(&inboxes), statistics: Statistics::open(settings) };
        let producer: BaseProducer<Callbacks> =
            config(settings).create_with_context(callbacks).unwrap_or_else(|error| process::fail(&error));
        let producer = Arc::new(producer);
        let polled = Arc::clone(&producer);
        thread::Builder::new()
            .name("poll".to_owned())
            .spawn(move || poll(&polled))
            .unwrap_or_else(|error| process::fail(&error));
        let (topic, queued, poll) = (settings.topic.clone(), settings.queued, settings.poll);
        Arc::new(Self { producer, inboxes, topic, queued, poll })
    }

    /// Records that have no report yet.
    pub fn left(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The task of the thread `home` that gives its requests their reports; it has no end.
    pub async fn settle(self: Arc<Self>, home: usize) {
        loop {
            let reports = poll_fn(|task| self.inboxes[home].take(task)).await;
            for (request, report) in reports {
                let _ = request.send(report);
            }
        }
    }

    /// Hand a record over, waiting for room, and for its report where that is promised.
    pub async fn produce<F>(&self, home: usize, value: &[u8], sleep: impl Fn(Duration) -> F) -> Outcome
    where
        F: Future<Output = ()>,
    {
        if process::stopping() {
            return Outcome::Full;
        }
        let (request, report) = if self.queued {
            (None, None)
        } else {
            let (sender, receiver) = oneshot::channel();
            (Some(sender), Some(receiver))
        };
        let waiting = Box::new(Waiting { home, request });
        let mut record =
            BaseRecord::<(), [u8], Box<Waiting>>::with_opaque_to(&self.topic, waiting).payload(value);
        let mut room = Room::default();
        while let Err((error, returned)) = self.producer.send(record) {
            if !is_full(&error) {
                return Outcome::Failed;
            }
            let Some(pause) = room.wait() else {
                return Outcome::Full;
            };
            sleep(pause).await;
            record = returned;
        }
        if let Some(poll) = self.poll {
            self.producer.poll(poll);
        }
        match report {
            None => Outcome::Queued,
            Some(report) => match report.await {
                Ok(Some((partition, offset))) => Outcome::Delivered { partition, offset },
                _ => Outcome::Failed,
            },
        }
    }
}

fn poll(producer: &BaseProducer<Callbacks>) {
    loop {
        producer.poll(POLL);
    }
}
