//! A recorder whose stream ends while it waits for its turn.

use shared::ids::{RecordingId, Seeded};
use shared::template::Format;
use shared::time::Timestamp;
use tokio::sync::mpsc;

use super::*;
use crate::record::tests::World;

struct Parent(mpsc::UnboundedSender<Report>);

impl Actor for Parent {
    type Context = Context<Self>;
}

impl Handler<Report> for Parent {
    type Result = ();

    fn handle(&mut self, report: Report, _: &mut Self::Context) {
        drop(self.0.send(report));
    }
}

#[test]
fn one_that_waits_with_its_part_and_then_ends_goes_before_the_others() {
    let mut world = World::new();
    world.stream(8);
    world.use_a_bucket();
    let Objects::Remote(remote) = world.objects.clone() else {
        panic!("a bucket")
    };
    let setting = Arc::new(world.setting("ends", Format::Flv, 1_800_000));
    actix::System::new().block_on(async {
        let all = remote.turn(u64::MAX, Haste::Ending).await.expect("a turn");
        // Who has one of these never gives it back.
        let others: Vec<_> = (0..3)
            .map(|_| {
                let remote = remote.clone();
                actix::spawn(async move {
                    let _turn = remote.turn(0, Haste::GoingOn).await;
                    std::future::pending::<()>().await;
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let (tell, mut told) = mpsc::unbounded_channel();
        let metrics = WorkerMetrics::default();
        let place = trace::Place::recording(RecordingId::generate(&Seeded::new(1), Timestamp::from_millis(5)));
        let recorder = RecorderActor::new(Parts {
            setting: Arc::clone(&setting),
            objects: world.objects.clone(),
            abandoned: Abandoned::open(&world.dir.path().join("abandoned")).expect("notes"),
            sync: Arc::clone(&world.sync),
            pool: Arc::new(Pool::start(1).expect("a thread")),
            progress: Arc::clone(&world.progress),
            until_ms: None,
            chapters: Chapters::new(place, "record", ("aircheck.format", "flv")),
            metrics,
            parent: Parent(tell).start().recipient(),
        });
        let recorder = recorder.start();
        // When this is answered the recorder has asked for a turn.
        recorder.send(Word::MoveEnd(None)).await.expect("alive");
        recorder.send(Word::End).await.expect("alive");
        drop(all);
        let file = async {
            loop {
                match told.recv().await.expect("its recorder") {
                    Report::Stepped { stepped, .. } if !stepped.files.is_empty() => return stepped.files.len(),
                    Report::Stepped { .. } => {}
                    Report::GaveUp { reason, .. } => panic!("{reason}"),
                }
            }
        };
        let files = tokio::time::timeout(Duration::from_secs(20), file).await;
        assert_eq!(files.expect("the only turn is its own"), 1);
        for other in others {
            other.abort();
        }
    });
}
