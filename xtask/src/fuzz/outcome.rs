//! What one target's run came to, read from libFuzzer's log.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

pub(super) struct Outcome {
    pub(super) target: String,
    minutes: f64,
    executions: u64,
    per_second: u64,
    corpus: u64,
    rss_start: u64,
    rss_peak: u64,
    cases: usize,
    status: ExitStatus,
}

impl Outcome {
    pub(super) const HEAD: &'static str =
        "target               minutes  executions  exec/s  corpus  RSS MB start/peak  result";

    pub(super) fn read(target: &str, took: Duration, log: &str, status: ExitStatus, cases: usize) -> Outcome {
        let statistic = |name: &str| number_after(log.rfind(name).and_then(|at| log.get(at + name.len()..)));
        Outcome {
            target: target.to_owned(),
            minutes: took.as_secs_f64() / 60.0,
            executions: statistic("stat::number_of_executed_units:"),
            per_second: statistic("stat::average_exec_per_sec:"),
            corpus: statistic(" corp: "),
            rss_start: number_after(log.find(" rss: ").and_then(|at| log.get(at + 6..))),
            rss_peak: statistic("stat::peak_rss_mb:"),
            cases,
            status,
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.status.success() && self.cases == 0
    }
}

/// The number that a text begins with, after blanks; 0 when there is none.
fn number_after(text: Option<&str>) -> u64 {
    let text = text.unwrap_or_default().trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rss = format!("{}/{}", self.rss_start, self.rss_peak);
        write!(
            f,
            "{:<20} {:>7.1} {:>11} {:>7} {:>7} {rss:>18}  ",
            self.target, self.minutes, self.executions, self.per_second, self.corpus
        )?;
        match (self.is_good(), self.cases) {
            (true, _) => f.write_str("ok"),
            (false, 0) => write!(f, "{}", self.status),
            (false, cases) => write!(f, "{cases} FOUND"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    const LOG: &str = "#4\tINITED cov: 100 ft: 200 corp: 3/40b exec/s: 0 rss: 72Mb\n#9\tDONE   cov: 120 ft: 260 corp: 17/90b lim: 8 exec/s: 1 rss: 80Mb\n\
        stat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     56\nstat::peak_rss_mb:              205\n";

    #[test]
    fn a_log_is_read() {
        let good = Outcome::read("x", Duration::from_secs(60), LOG, ExitStatus::from_raw(0), 0);
        assert_eq!((good.executions, good.per_second, good.corpus), (1234, 56, 17));
        assert_eq!((good.rss_start, good.rss_peak), (72, 205));
        assert!(good.is_good() && good.to_string().ends_with("ok"), "{good}");
        let bad = Outcome::read("x", Duration::from_secs(60), LOG, ExitStatus::from_raw(77 << 8), 1);
        assert!(!bad.is_good() && bad.to_string().ends_with("1 FOUND"), "{bad}");
        let empty = Outcome::read("x", Duration::ZERO, "", ExitStatus::from_raw(256), 0);
        assert!(!empty.is_good() && empty.executions == 0);
    }
}
