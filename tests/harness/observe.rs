//! Waiting for a condition, and reading what is observed. The only place of the harness that sleeps.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long one look at a condition is put off.
const POLL: Duration = Duration::from_millis(5);

/// The clock of tests, the demo and the benches.
#[expect(clippy::disallowed_methods, reason = "real processes live on the real clock")]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits for `at`, for pacing and for phases that last by definition (not for a condition: see [`eventually`]).
#[expect(clippy::disallowed_methods, reason = "the one pause of the harness")]
pub fn pause_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(now()));
}

/// Looks at `condition` until it holds, at most for `deadline`. The error names `what`.
pub fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    eventually_some(what, deadline, || condition().then_some(()))
}

/// Like [`eventually`], for a condition that yields something.
pub fn eventually_some<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let end = now() + deadline;
    loop {
        if let Some(found) = condition() {
            return Ok(found);
        }
        if now() >= end {
            bail!("not within {deadline:?}: {what}");
        }
        pause_until(now() + POLL);
    }
}

/// The samples of an OpenMetrics or Prometheus text page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    /// Lines that are not samples (comments, `# EOF`) are skipped; a line that is neither is an error.
    pub fn parse(page: &str) -> Result<Self> {
        let mut samples = Vec::new();
        for line in page
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match parse_sample(line) {
                Some(sample) => samples.push(sample),
                None => bail!("not a metric sample: {line:?}"),
            }
        }
        Ok(Self { samples })
    }

    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The sum of all samples of `name` that carry all of `labels`; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value))
        })
    }
}

/// `name{key="value",…} number`, with an optional timestamp or exemplar behind, which is ignored.
fn parse_sample(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches(',');
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, quoted) = rest.split_once("=\"")?;
            let (value, after) = unquote(quoted)?;
            labels.insert(key.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// The value up to its closing quote, unescaped, and what follows the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_labels() {
        let page = "# HELP a b\n# TYPE a counter\na_total{x=\"1\",y=\"q\\\"},{\"} 3\na_total{x=\"2\",y=\"\"} 4.5 # {id=\"7\"} 1\nup 1\n# EOF\n";
        let metrics = Metrics::parse(page).unwrap();
        assert_eq!(metrics.sum("a_total", &[]), 7.5);
        assert_eq!(metrics.sum("a_total", &[("x", "1")]), 3.0);
        assert_eq!(metrics.sum("a_total", &[("y", "q\"},{")]), 3.0);
        assert_eq!(metrics.sum("up", &[]), 1.0);
        assert_eq!(metrics.sum("down", &[]), 0.0);
        assert!(Metrics::parse("a{x=\"1} 3").is_err());
    }

    #[test]
    fn a_condition_that_never_holds_is_named() {
        let error = eventually("pigs fly", Duration::from_millis(20), || false).unwrap_err();
        assert!(error.to_string().contains("pigs fly"));
    }
}
