//! [`Budget`]: how much disk journals may take while recordings wait for storage, and what happens as it is used up.
//!
//! Alarms at 50, 80 and 95 percent; from 95 on no publish is accepted; when all is used, the recordings that have waited longest end
//! by name, one publish a look, until there is room again.

use std::fs;
use std::io;
use std::path::Path;

use crate::stream::adopt::NOTES;

/// Percent of the budget at which people are told.
const ALARMS: [u64; 3] = [50, 80, 95];
/// Percent from which on no publish is accepted.
const CLOSE: u64 = 95;
/// Percent below which publishes are accepted again.
const OPEN: u64 = 90;
/// The reason of recordings that end for it.
pub(crate) const REASON: &str = "journal_budget";

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// So many percent are used, more than at the last alarm.
    Alarm(u64),
    /// Less than the last alarm's percentage is used.
    Eased(u64),
    /// Publishes are accepted from now on, or not.
    Accept(bool),
    /// The recordings of this publish end.
    End(String),
}

/// What is used, and what was said of it.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Bytes; 0: no bound but the disk's.
    limit: u64,
    alarm: u64,
    closed: bool,
}

impl Budget {
    /// A budget of `limit` bytes; 0: none.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            alarm: 0,
            closed: false,
        }
    }

    /// Bytes; 0: no bound but the disk's.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Judges what each publish's journal takes: publish id, which sorts by time, and bytes.
    pub(crate) fn look(&mut self, journals: &[(String, u64)]) -> Vec<Verdict> {
        if self.limit == 0 {
            return Vec::new();
        }
        let used: u64 = journals.iter().map(|(_, bytes)| bytes).sum();
        let percent = used.saturating_mul(100) / self.limit;
        let mut verdicts = Vec::new();
        let alarm = ALARMS.into_iter().filter(|at| percent >= *at).max().unwrap_or(0);
        if alarm > self.alarm {
            verdicts.push(Verdict::Alarm(percent));
        } else if alarm < self.alarm {
            verdicts.push(Verdict::Eased(percent));
        }
        self.alarm = alarm;
        let closed = percent >= if self.closed { OPEN } else { CLOSE };
        if closed != self.closed {
            self.closed = closed;
            verdicts.push(Verdict::Accept(!closed));
        }
        if used >= self.limit {
            // Among those that hold much, so that it helps, the one that came first.
            let mean = used / (journals.len() as u64).max(1);
            let waits = journals.iter().filter(|(_, bytes)| *bytes >= mean).min();
            verdicts.extend(waits.map(|(publish, _)| Verdict::End(publish.clone())));
        }
        verdicts
    }
}

/// Bytes of each journal below `journals`, by the name of its directory.
pub(crate) fn measure(journals: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(journals)? {
        let entry = entry?;
        let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_dir()) else {
            continue;
        };
        let notes = entry.path().join(NOTES);
        let sum = journal::retention::usage(&entry.path()).and_then(|bytes| {
            // There are none before the first recorder.
            Ok(bytes
                + if notes.is_dir() {
                    journal::retention::usage(&notes)?
                } else {
                    0
                })
        });
        match sum {
            Ok(bytes) => found.push((name, bytes)),
            // Removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journals(bytes: &[u64]) -> Vec<(String, u64)> {
        let named = |(n, bytes): (usize, &u64)| (format!("p{n}"), *bytes);
        bytes.iter().enumerate().map(named).collect()
    }

    #[test]
    fn each_mark_is_said_once_on_the_way_up_and_once_on_the_way_down() {
        let mut budget = Budget::new(1000);
        assert_eq!(budget.look(&journals(&[200, 290])), []);
        assert_eq!(budget.look(&journals(&[200, 300])), [Verdict::Alarm(50)]);
        assert_eq!(budget.look(&journals(&[200, 350])), []);
        assert_eq!(budget.look(&journals(&[900])), [Verdict::Alarm(90)]);
        assert_eq!(
            budget.look(&journals(&[960])),
            [Verdict::Alarm(96), Verdict::Accept(false)]
        );
        assert_eq!(budget.look(&journals(&[920])), [Verdict::Eased(92)]);
        assert_eq!(
            budget.look(&journals(&[100])),
            [Verdict::Eased(10), Verdict::Accept(true)]
        );
    }

    #[test]
    fn when_all_is_used_the_oldest_that_holds_much_ends() {
        let mut budget = Budget::new(1000);
        let verdicts = budget.look(&journals(&[10, 500, 600]));
        assert_eq!(verdicts.last(), Some(&Verdict::End("p1".to_owned())));
        assert_eq!(
            budget.look(&journals(&[10, 20, 600])),
            [Verdict::Eased(63), Verdict::Accept(true)]
        );
    }

    #[test]
    fn without_a_limit_nothing_is_judged() {
        assert_eq!(Budget::new(0).look(&journals(&[u64::MAX])), []);
    }
}
