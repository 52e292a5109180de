//! The command line: the same for every peer, in Rust and in Go.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process;
use std::str::FromStr;
use std::time::Duration;

/// Settings of the Kafka client that are not the promise's.
#[derive(Clone, Copy)]
pub enum Profile {
    /// The client's own defaults.
    Default,
    /// Larger batches, a larger queue, and a shorter linger.
    Tuned,
    /// As small batches as librdkafka made at first.
    Old,
}

/// What an accept loop does about an error: the study asks what each is worth in a storm.
#[derive(Clone, Copy)]
pub enum AcceptErrors {
    /// Waits a moment, in which descriptors may be closed.
    Pause,
    /// Accepts again at once.
    Retry,
    /// Ends, as a loop with `accept().await?` does; what was accepted is served further.
    End,
}

pub struct Settings {
    pub address: SocketAddr,
    pub brokers: String,
    pub topic: String,
    /// Whether the answer comes when the record is queued, and not when it is delivered.
    pub queued: bool,
    pub profile: Profile,
    pub linger_ms: Option<f64>,
    pub batch_bytes: Option<u32>,
    pub threads: usize,
    pub accept_errors: AcceptErrors,
    /// How long a server's own loop polls the producer after each record, and stands still meanwhile.
    pub poll: Option<Duration>,
    /// The file that librdkafka's statistics go to, a line each second.
    pub statistics: Option<PathBuf>,
}

impl Settings {
    /// The command line; a wrong one ends the program with exit code 2.
    pub fn parse(accept_errors: AcceptErrors) -> Self {
        read(std::env::args().skip(1), accept_errors).unwrap_or_else(|text| {
            eprintln!("{text}");
            process::exit(2)
        })
    }
}

fn read(
    mut arguments: impl Iterator<Item = String>,
    accept_errors: AcceptErrors,
) -> Result<Settings, String> {
    let mut given = Given(BTreeMap::new());
    while let Some(argument) = arguments.next() {
        let Some(option) = argument.strip_prefix("--") else {
            return Err(format!("{argument}: not an option"));
        };
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => (option, arguments.next().ok_or_else(|| format!("--{option}: needs a value"))?),
        };
        given.0.insert(name.to_owned(), value);
    }
    let host = given.parsed("host")?.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = given.parsed("port")?.ok_or("--port: is needed")?;
    let settings = Settings {
        address: SocketAddr::new(host, port),
        brokers: given.needed("brokers")?,
        topic: given.needed("topic")?,
        queued: given
            .one_of("promise", &[("queued", true), ("delivered", false)])?
            .ok_or("--promise: is needed")?,
        profile: given
            .one_of("profile", &[("default", Profile::Default), ("tuned", Profile::Tuned), ("old", Profile::Old)])?
            .unwrap_or(Profile::Default),
        linger_ms: given.parsed("linger-ms")?,
        batch_bytes: given.parsed("batch-bytes")?,
        threads: given.parsed("threads")?.unwrap_or(1),
        accept_errors: given
            .one_of(
                "accept-errors",
                &[("pause", AcceptErrors::Pause), ("retry", AcceptErrors::Retry), ("end", AcceptErrors::End)],
            )?
            .unwrap_or(accept_errors),
        poll: given.parsed("poll-ms")?.map(Duration::from_millis),
        statistics: given.parsed("statistics")?,
    };
    if settings.threads == 0 {
        return Err("--threads: at least 1".to_owned());
    }
    match given.0.keys().next() {
        Some(name) => Err(format!("--{name}: not an option")),
        None => Ok(settings),
    }
}

struct Given(BTreeMap<String, String>);

impl Given {
    fn needed(&mut self, name: &str) -> Result<String, String> {
        self.0.remove(name).ok_or_else(|| format!("--{name}: is needed"))
    }

    fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| format!("--{name}: {text} is no such value")),
        }
    }

    fn one_of<T: Copy>(&mut self, name: &str, among: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        match among.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let words: Vec<&str> = among.iter().map(|(word, _)| *word).collect();
                Err(format!("--{name}: {text} is none of {}", words.join(", ")))
            }
        }
    }
}
