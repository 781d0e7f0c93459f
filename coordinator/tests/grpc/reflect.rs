//! Every call of every service, as the contract's own descriptors have it, with requests spoiled field by field.

use bytes::{Buf as _, BufMut as _};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use proto::v1;
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

/// A call of the contract.
#[derive(Debug, Clone)]
pub(crate) struct Method {
    /// `/package.Service/Method`.
    pub(crate) path: String,
    input: String,
}

/// The contract.
pub(crate) struct Contract(FileDescriptorSet);

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// A text of 1 MiB.
    Long,
    /// A value that the enumeration does not have.
    Unlisted,
    /// No UUID.
    NoId,
    /// The least number there is.
    Least,
    /// The greatest.
    Greatest,
}

/// A field of a request, or of a message within it.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    /// `name` or `message.name`.
    pub(crate) name: String,
    numbers: Vec<u32>,
    kind: Type,
}

impl Contract {
    pub(crate) fn new() -> Self {
        Contract(FileDescriptorSet::decode(v1::DESCRIPTORS).unwrap())
    }

    pub(crate) fn methods(&self) -> Vec<Method> {
        let mut methods = Vec::new();
        for file in &self.0.file {
            for service in &file.service {
                for method in &service.method {
                    methods.push(Method {
                        path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                        input: method.input_type().trim_start_matches('.').to_owned(),
                    });
                }
            }
        }
        methods
    }

    fn message(&self, name: &str) -> &DescriptorProto {
        let found = self.0.file.iter().find_map(|file| {
            let within = name.strip_prefix(file.package())?.strip_prefix('.')?;
            file.message_type.iter().find(|message| message.name() == within)
        });
        found.unwrap_or_else(|| panic!("no message {name}"))
    }

    /// Every single value of a method's request, in messages within messages too.
    pub(crate) fn fields(&self, method: &Method) -> Vec<Field> {
        let mut found = Vec::new();
        self.walk(self.message(&method.input), "", &[], &mut found);
        found
    }

    fn walk(&self, message: &DescriptorProto, before: &str, numbers: &[u32], found: &mut Vec<Field>) {
        for field in &message.field {
            let number = |field: &FieldDescriptorProto| u32::try_from(field.number()).unwrap();
            let path: Vec<u32> = numbers.iter().copied().chain([number(field)]).collect();
            let name = format!("{before}{}", field.name());
            if field.r#type() == Type::Message {
                if path.len() < 4 && !field.type_name().starts_with(".google") {
                    let inner = self.message(field.type_name().trim_start_matches('.'));
                    self.walk(inner, &format!("{name}."), &path, found);
                }
                continue;
            }
            found.push(Field {
                name,
                numbers: path,
                kind: field.r#type(),
            });
        }
    }
}

impl Field {
    /// The ways in which this field can be wrong by itself.
    pub(crate) fn wrongs(&self) -> Vec<Wrong> {
        let mut wrongs = Vec::new();
        match self.kind {
            Type::String => {
                wrongs.push(Wrong::Long);
                if self.name.ends_with("_id") {
                    wrongs.push(Wrong::NoId);
                }
            }
            Type::Enum => wrongs.push(Wrong::Unlisted),
            Type::Int64 => wrongs.extend([Wrong::Least, Wrong::Greatest]),
            _ => {}
        }
        wrongs
    }

    /// A request with this field set, whatever it held: of two values on the wire the last one counts.
    pub(crate) fn spoil(&self, request: &[u8], wrong: Wrong) -> Vec<u8> {
        let (last, outer) = self.numbers.split_last().unwrap();
        let mut value = Vec::new();
        match wrong {
            Wrong::Long => prost::encoding::string::encode(*last, &"x".repeat(1 << 20), &mut value),
            Wrong::NoId => prost::encoding::string::encode(*last, &"no-uuid".to_owned(), &mut value),
            Wrong::Unlisted => prost::encoding::int32::encode(*last, &999, &mut value),
            Wrong::Least => prost::encoding::int64::encode(*last, &i64::MIN, &mut value),
            Wrong::Greatest => prost::encoding::int64::encode(*last, &i64::MAX, &mut value),
        }
        for number in outer.iter().rev() {
            let mut wrapped = Vec::new();
            encode_key(*number, WireType::LengthDelimited, &mut wrapped);
            encode_varint(value.len() as u64, &mut wrapped);
            wrapped.extend(value);
            value = wrapped;
        }
        [request, &value].concat()
    }
}

/// Messages as they are on the wire.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        Ok(Some(bytes.to_vec()))
    }
}

/// Makes a call; of a stream down only whether it begins, with the first message.
pub(crate) async fn call(channel: &Channel, path: &str, request: Vec<u8>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    let up = tokio_stream::once(request);
    let answer = client.streaming(Request::new(up), path, Raw).await?;
    let mut down = answer.into_inner();
    down.message().await.map(drop)
}
