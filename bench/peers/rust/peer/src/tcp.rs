//! What the peers over a TCP stream do alike: their beginning, and their end.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use crate::kafka::Deliveries;
use crate::process;
use crate::settings::{AcceptErrors, Settings};

/// Accepts and answers on one listening socket, with the deliveries of this home, until the process ends.
pub type Serve = fn(usize, TcpListener, Arc<Deliveries>, AcceptErrors) -> io::Result<()>;

/// Serve as the command line says; `accept_errors` is what a failed accept comes to unless that says otherwise.
pub fn run(accept_errors: AcceptErrors, serve: Serve) -> ! {
    let settings = Settings::parse(accept_errors);
    let deliveries = Deliveries::open(&settings);
    let accept_errors = settings.accept_errors;
    let served = Arc::clone(&deliveries);
    process::run(
        &settings,
        settings.threads,
        move |home, listener| serve(home, listener, Arc::clone(&served), accept_errors),
        move || deliveries.left(),
    )
}
