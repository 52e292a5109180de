//! What librdkafka tells of itself, for the study to read.

use std::fs::File;
use std::io::Write;
use std::sync::Mutex;

use rdkafka::client::ClientContext;

use crate::process;
use crate::settings::Settings;

/// A file that gets a line for each second, where the settings name one; the context of a producer that needs
/// nothing else.
pub struct Statistics(Option<Mutex<File>>);

impl Statistics {
    pub fn open(settings: &Settings) -> Self {
        let file = settings
            .statistics
            .as_ref()
            .map(|path| Mutex::new(File::create(path).unwrap_or_else(|error| process::fail(&error))));
        Self(file)
    }

    pub fn write(&self, statistics: &[u8]) {
        let Some(file) = &self.0 else {
            return;
        };
        let line = [statistics, b"\n"].concat();
        let written = file.lock().expect("no thread panics here").write_all(&line);
        written.unwrap_or_else(|error| process::fail(&error));
    }
}

impl ClientContext for Statistics {
    fn stats_raw(&self, statistics: &[u8]) {
        self.write(statistics);
    }
}
