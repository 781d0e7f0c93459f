use proto::v1::{
    AcquireLeaseResponse, CoordinatorDown, ReadRecordingResponse, ReleaseLeaseResponse, acquire_lease_response::Outcome,
};
use tokio::sync::oneshot;

use super::super::line::Directives;
use super::*;

type Answer = Result<AcquireLeaseResponse, Status>;

/// A line at whose end somebody takes each question and answers it when they like.
#[derive(Debug)]
struct Held(mpsc::UnboundedSender<(String, oneshot::Sender<Answer>)>);

#[async_trait::async_trait]
impl Line for Held {
    async fn acquire_lease(&self, request: AcquireLeaseRequest) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.0.send((request.publish_id, answer)).expect("somebody listens");
        answered.await.expect("an answer")
    }

    async fn session(&self, _: mpsc::Receiver<WorkerUp>) -> Result<Directives, Status> {
        Ok(Box::pin(tokio_stream::empty::<Result<CoordinatorDown, Status>>()))
    }

    async fn release_lease(&self, _: ReleaseLeaseRequest) -> Result<ReleaseLeaseResponse, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn commit_file(&self, _: CommitFileRequest) -> Result<(), Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn read_recording(&self, _: ReadRecordingRequest) -> Result<ReadRecordingResponse, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn commit_recording(&self, _: CommitRecordingRequest) -> Result<(), Status> {
        Err(Status::unimplemented("not asked"))
    }
}

struct World {
    agent: Agent,
    asked: mpsc::UnboundedReceiver<(String, oneshot::Sender<Answer>)>,
}

fn world() -> World {
    let (line, asked) = mpsc::unbounded_channel();
    let identity = Identity {
        id: WorkerId::from_uuid(uuid::Uuid::from_u128(9)),
        name: "w".to_owned(),
        rtmp: String::new(),
        storages: BTreeMap::new(),
    };
    World {
        agent: Agent::over(Arc::new(Held(line)), identity),
        asked,
    }
}

fn publish(number: u128) -> PublishId {
    PublishId::from_uuid(uuid::Uuid::from_u128(number))
}

impl World {
    /// A publish of a stream has begun: gives what asks for it.
    fn begins(&self, number: u128, stream: &str) -> impl Future<Output = LeaseOutcome> + use<> {
        let ask = Ask {
            publish: publish(number),
            stream: StreamKey::new("push.example.com", "live", stream).expect("a name"),
            params: String::new(),
            client: String::new(),
            started_ms: 0,
            over: Arc::default(),
            held: None,
        };
        let (agent, turn) = (self.agent.clone(), self.agent.turn(&ask.stream));
        async move { agent.acquire_in(turn, ask).await }
    }

    /// Those who are asked about, once everybody waits for an answer.
    async fn asked(&mut self) -> Vec<(PublishId, oneshot::Sender<Answer>)> {
        // Virtual: passes when nobody has anything else to do, and is shorter than any wait.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut asked = Vec::new();
        while let Ok((publish, answer)) = self.asked.try_recv() {
            asked.push((publish.parse().expect("an id"), answer));
        }
        asked
    }

    /// The only one who is asked about.
    async fn one(&mut self) -> (PublishId, oneshot::Sender<Answer>) {
        let mut asked = self.asked().await;
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.remove(0)
    }
}

fn granted(epoch: u64) -> Answer {
    let grant = Grant {
        epoch: Epoch::new(epoch),
        revision: 1,
        recordings: Vec::new(),
    };
    Ok(AcquireLeaseResponse {
        outcome: Some(Outcome::Granted((&grant).into())),
    })
}

#[tokio::test(start_paused = true)]
async fn publishes_of_a_stream_are_asked_about_in_the_order_in_which_they_began() {
    let mut world = world();
    let (first, second) = (world.begins(1, "one"), world.begins(2, "one"));
    // Whoever comes to ask first.
    let second = tokio::spawn(second);
    assert!(world.asked().await.is_empty(), "the second waits for the first");
    let first = tokio::spawn(first);
    let (publish_asked, answer) = world.one().await;
    assert_eq!(publish_asked, publish(1));
    let other = tokio::spawn(world.begins(3, "two"));
    let (publish_asked, of_other) = world.one().await;
    assert_eq!(publish_asked, publish(3), "another stream waits for nobody");
    answer.send(granted(1)).expect("it listens");
    of_other.send(granted(1)).expect("it listens");
    let (publish_asked, answer) = world.one().await;
    assert_eq!(publish_asked, publish(2));
    answer.send(granted(2)).expect("it listens");
    for task in [first, second, other] {
        assert!(matches!(task.await, Ok(LeaseOutcome::Granted(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn the_order_outlasts_an_outage_and_nobody_waits_for_a_question_that_cannot_be_answered() {
    let mut world = world();
    let first = tokio::spawn(world.begins(1, "one"));
    let second = tokio::spawn(world.begins(2, "one"));
    for _ in 0..5 {
        let (publish_asked, answer) = world.one().await;
        assert_eq!(publish_asked, publish(1), "the second waits for the first");
        answer
            .send(Err(Status::unavailable("nobody leads")))
            .expect("it listens");
        tokio::time::sleep(LONGEST_WAIT).await;
    }
    let (_, answer) = world.one().await;
    answer
        .send(Err(Status::invalid_argument("no such thing")))
        .expect("it listens");
    let (publish_asked, answer) = world.one().await;
    assert_eq!(publish_asked, publish(2), "the first fails by itself");
    answer.send(granted(1)).expect("it listens");
    assert!(second.await.is_ok());
    // One that is given up holds nobody back.
    first.abort();
    let third = tokio::spawn(world.begins(3, "one"));
    let (publish_asked, answer) = world.one().await;
    assert_eq!(publish_asked, publish(3));
    answer.send(granted(2)).expect("it listens");
    assert!(third.await.is_ok());
}
