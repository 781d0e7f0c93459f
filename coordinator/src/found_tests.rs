//! Publishes that are over when they are asked for, and recordings that wait for their stream.

use super::*;

impl World {
    /// A worker asks for a publish that is over; gives what it records first.
    fn found(&mut self, worker: WorkerId, started: Timestamp) -> (Request, Grant, GrantedRecording) {
        let request = Request {
            adopted: true,
            started,
            storage: self.fleet.storage(worker, "").unwrap().to_owned(),
            ..self.request(worker)
        };
        let grant = self.grant(&request);
        let first = grant.recordings[0].clone();
        (request, grant, first)
    }
}

#[test]
fn a_publish_that_is_over_when_it_is_asked_for_goes_on_behind_the_one_before_it() {
    for release_is_heard_first in [true, false] {
        let mut world = world();
        let worker = world.worker_on("");
        let (first, before, id, _) = world.publish(worker);
        if release_is_heard_first {
            world.release(&first, before.epoch);
        }
        world.second += 1;
        let (short, grant, goes_on) = world.found(worker, world.now());
        assert_eq!((goes_on.id, grant.epoch), (id, Epoch::new(2)), "one recording");
        assert_eq!(goes_on.stitch.unwrap().before, [Epoch::new(1)]);
        assert_eq!(world.grant(&short).epoch, grant.epoch, "asked twice");
        // A release that comes behind that changes nothing, nor does a late question of the one before.
        world.release(&first, before.epoch);
        assert_eq!(world.grant(&first).epoch, before.epoch);
        let stitch = world.stitch(id).unwrap();
        assert_eq!(
            (stitch.live, &stitch.epochs[..]),
            (None, &[before.epoch, grant.epoch][..])
        );
        let (_, _, third, stitch) = world.publish(worker);
        assert_eq!((third, &stitch.before[..]), (id, &[Epoch::new(2), Epoch::new(1)][..]));
    }
}

#[test]
fn what_a_worker_finds_that_began_earlier_than_what_goes_on_is_a_recording_of_its_own() {
    let mut world = world();
    let (worker, other) = (world.worker_on("s3://a"), world.worker_on("s3://a"));
    let early = world.now();
    world.second += 1;
    let (first, grant, id, _) = world.publish(worker);
    for (finder, began) in [(worker, early), (other, first.started)] {
        world.second += 1;
        let (.., own) = world.found(finder, began);
        assert!(
            own.id != id && own.stitch == Some(Stitch::default()),
            "the other is live"
        );
        assert_eq!(world.leases.holder(&first.stream).unwrap().record.id, first.publish);
    }
    world.second += 1;
    let within = world.now();
    world.second += 1;
    world.release(&first, grant.epoch);
    for (finder, began) in [(worker, early), (worker, first.started), (other, within)] {
        let (.., own) = world.found(finder, began);
        assert_ne!(own.id, id, "{finder} {began}");
    }
    // Of those that wait the one goes on whose media is the latest, whenever its worker asked for it.
    let (_, latest, last) = world.found(other, world.now());
    assert_ne!(last.id, id, "another began behind it");
    world.found(worker, early);
    let (.., next, stitch) = world.publish(worker);
    assert_eq!((next, stitch.before[0]), (last.id, latest.epoch));
}

#[test]
fn what_another_worker_finds_goes_on_if_it_began_when_the_one_before_was_over() {
    let mut world = world();
    let (worker, other) = (world.worker_on("s3://a"), world.worker_on("s3://a"));
    let (first, grant, id, _) = world.publish(worker);
    world.second += 1;
    world.release(&first, grant.epoch);
    let (_, found, goes_on) = world.found(other, world.now());
    assert_eq!(
        (goes_on.id, &goes_on.stitch.unwrap().before[..]),
        (id, &[grant.epoch][..])
    );
    let (.., next, stitch) = world.publish(worker);
    assert_eq!((next, &stitch.before[..]), (id, &[found.epoch, grant.epoch][..]));
}
