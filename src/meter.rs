//! How the instruments are made that `/metrics` shows. Each part of the program owns its own; the web collects them.

use prometheus::{Histogram, HistogramOpts, HistogramVec};

use crate::domain::{Error, Result};

/// A histogram with these upper bounds.
///
/// # Errors
/// `Internal` for a name or bounds that Prometheus does not know.
pub(crate) fn histogram(name: &str, help: &str, bounds: &[f64]) -> Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())).map_err(unusable)
}

/// As [`histogram`], one for each value of the labels.
///
/// # Errors
/// As [`histogram`].
pub(crate) fn histograms(name: &str, help: &str, bounds: &[f64], labels: &[&str]) -> Result<HistogramVec> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels).map_err(unusable)
}

/// An instrument that cannot be made.
pub(crate) fn unusable(error: prometheus::Error) -> Error {
    Error::Internal(format!("metrics: {error}"))
}
