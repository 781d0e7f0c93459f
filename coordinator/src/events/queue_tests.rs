use proptest::prelude::*;
use serde_json::Map;
use shared::ids::StreamKey;

use super::*;
use crate::events::{Kind, letter::Draft};

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

fn letter(sequence: u64, subject: u128, kinds: &[Kind]) -> Letter {
    let draft = |kind: &Kind| Draft {
        kind: *kind,
        body: Map::new(),
        link: None,
    };
    let stream = StreamKey::new("d", "a", "s").unwrap();
    Letter::new(
        sequence,
        (at(0), 1, Uuid::from_u128(subject), stream),
        kinds.iter().map(draft).collect(),
    )
}

fn url(event: &Event) -> String {
    event.kind.to_string()
}

fn names(attempts: &[Attempt]) -> Vec<Name> {
    attempts.iter().map(|attempt| attempt.name).collect()
}

fn fail() -> Result<(), String> {
    Err("no".to_owned())
}

#[test]
fn a_lane_keeps_its_order_and_waits_for_its_first() {
    let mut queue = Queue::new(EventsConfig::default());
    queue.add(letter(1, 1, &[Kind::Status, Kind::Status, Kind::File]), at(0), url);
    queue.add(letter(2, 1, &[Kind::Status]), at(0), url);
    queue.add(letter(3, 2, &[Kind::Status]), at(0), url);
    // The file goes to another receiver, the other recording is another lane.
    assert_eq!(names(&queue.due(at(0))), [(1, 2), (1, 0), (3, 0)]);
    assert_eq!(queue.due(at(0)), []);
    assert!(matches!(
        queue.done((1, 2), Ok(()), false, at(1)),
        Some((Change::Keep(_), false))
    ));
    assert!(matches!(
        queue.done((3, 0), Ok(()), false, at(1)),
        Some((Change::Settle(_), false))
    ));
    queue.done((1, 0), fail(), false, at(5)).unwrap();
    assert_eq!(queue.due(at(60_004)), []);
    assert_eq!(queue.wake(), Some(at(60_005)));
    assert_eq!(names(&queue.due(at(60_005))), [(1, 0)]);
    queue.done((1, 0), Ok(()), false, at(60_010)).unwrap();
    assert_eq!(names(&queue.due(at(60_010))), [(1, 1)]);
    let (change, _) = queue.done((1, 1), Ok(()), false, at(60_011)).unwrap();
    assert!(matches!(change, Change::Settle(letter) if letter.sequence == 1));
    assert_eq!(names(&queue.due(at(60_011))), [(2, 0)]);
    queue.done((2, 0), Ok(()), false, at(60_012)).unwrap();
    assert_eq!(
        (queue.len(), queue.wake(), queue.receivers.len(), queue.lanes.len()),
        (0, None, 0, 0)
    );
    assert_eq!(queue.done((2, 0), Ok(()), false, at(60_012)), None, "twice");
}

#[test]
fn twelve_retries_a_minute_apart_and_then_the_next() {
    let mut queue = Queue::new(EventsConfig::default());
    queue.add(letter(1, 1, &[Kind::Status]), at(0), url);
    queue.add(letter(2, 1, &[Kind::Status]), at(0), url);
    let mut now = at(0);
    for attempt in 0..=12 {
        assert_eq!(names(&queue.due(now)), [(1, 0)], "{attempt}");
        let (change, given_up) = queue.done((1, 0), fail(), false, now).unwrap();
        assert_eq!(given_up, attempt == 12);
        assert_eq!(matches!(change, Change::Settle(_)), attempt == 12);
        now = queue.wake().unwrap();
    }
    assert_eq!(now, at(12 * 60_000), "the next goes at once");
    assert_eq!(names(&queue.due(now)), [(2, 0)]);
}

#[test]
fn what_was_tried_before_a_change_of_leaders_goes_on_where_it_was() {
    let config = EventsConfig {
        retry_factor: 2,
        retries: 9,
        max_retry_after: Duration::from_secs(200),
        ..EventsConfig::default()
    };
    let mut queue = Queue::new(config.clone());
    queue.add(letter(1, 1, &[Kind::Status, Kind::File]), at(0), url);
    queue.due(at(0));
    queue.done((1, 1), Ok(()), false, at(1)).unwrap();
    queue.done((1, 0), fail(), false, at(1)).unwrap();
    queue.due(at(60_001));
    let (Change::Keep(kept), _) = queue.done((1, 0), fail(), false, at(60_001)).unwrap() else {
        panic!("it is not settled")
    };
    let mut next = Queue::new(config);
    next.add(kept.clone(), at(60_002), url);
    assert_eq!(next.wake(), Some(at(180_001)), "the second pause is twice as long");
    assert_eq!(
        names(&next.due(at(180_001))),
        [(1, 0)],
        "what was delivered is not sent again"
    );
    next.done((1, 0), fail(), false, at(180_001)).unwrap();
    assert_eq!(
        next.wake(),
        Some(at(380_001)),
        "and at most as long as the settings say"
    );
    let mut behind = Queue::new(EventsConfig::default());
    behind.add(kept, at(50), url);
    assert_eq!(names(&behind.due(at(50))), [(1, 0)], "a clock that went back");
}

#[test]
fn a_receiver_that_hangs_costs_no_other_a_place() {
    let config = EventsConfig {
        per_receiver: 2,
        ..EventsConfig::default()
    };
    let mut queue = Queue::new(config);
    for n in 0..10 {
        queue.add(letter(n, u128::from(n), &[Kind::Status, Kind::File]), at(0), url);
    }
    let of = |attempts: &[Attempt], kind: Kind| attempts.iter().filter(|attempt| attempt.event.kind == kind).count();
    let first = queue.due(at(0));
    assert_eq!((of(&first, Kind::Status), of(&first, Kind::File)), (2, 2));
    let mut files = 2;
    let mut under_way = names(&first);
    while let Some(at_) = under_way.iter().position(|(_, index)| *index == 1) {
        queue.done(under_way.remove(at_), Ok(()), false, at(1)).unwrap();
        let more = queue.due(at(1));
        assert_eq!(of(&more, Kind::Status), 0);
        files += of(&more, Kind::File);
        under_way.extend(names(&more));
    }
    assert_eq!(files, 10);
}

proptest! {
    /// Whatever receivers do: each event is delivered or given up once, in the order of its lane, and no receiver has more than its places.
    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(
        letters in proptest::collection::vec((0..4u128, proptest::collection::vec(0..3usize, 1..4)), 1..25),
        answers in proptest::collection::vec(any::<bool>(), 0..400),
    ) {
        let kinds = [Kind::Status, Kind::File, Kind::PushStart];
        let config = EventsConfig { per_receiver: 2, retries: 3, ..EventsConfig::default() };
        let mut queue = Queue::new(config);
        let mut expected: BTreeMap<(u128, Kind), Vec<Name>> = BTreeMap::new();
        for (n, (subject, chosen)) in letters.iter().enumerate() {
            let sequence = n as u64;
            let chosen: Vec<Kind> = chosen.iter().map(|kind| kinds[*kind]).collect();
            for (index, kind) in chosen.iter().enumerate() {
                expected.entry((*subject, *kind)).or_default().push((sequence, index));
            }
            queue.add(letter(sequence, *subject, &chosen), at(0), url);
        }
        let (mut now, mut answers, mut settled) = (at(0), answers.into_iter(), 0);
        let mut over: BTreeMap<(u128, Kind), Vec<Name>> = BTreeMap::new();
        let mut under_way: Vec<Attempt> = Vec::new();
        loop {
            under_way.extend(queue.due(now));
            for kind in kinds {
                prop_assert!(under_way.iter().filter(|attempt| attempt.event.kind == kind).count() <= 2);
            }
            if let Some(attempt) = under_way.pop() {
                let good = answers.next().unwrap_or(true);
                let result = if good { Ok(()) } else { fail() };
                let (change, given_up) = queue.done(attempt.name, result, false, now).unwrap();
                if good || given_up {
                    let subject = letters[attempt.name.0 as usize].0;
                    over.entry((subject, attempt.event.kind)).or_default().push(attempt.name);
                }
                settled += usize::from(matches!(change, Change::Settle(_)));
            } else if let Some(at) = queue.wake() {
                now = at.max(now);
            } else {
                break;
            }
        }
        prop_assert_eq!(over, expected);
        prop_assert_eq!(settled, letters.len());
        prop_assert_eq!((queue.len(), queue.lanes.len(), queue.receivers.len()), (0, 0, 0));
    }
}
