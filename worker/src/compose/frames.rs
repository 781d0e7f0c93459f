//! [`Frames`]: the samples of a stored AAC or MP3 file. It holds no times: they follow from how long frames last.

use media::access_unit::{Codec, Track};
use media::codec::{aac, mp3};
use media::mp4::{Config, FragmentSample};

use super::Stop;
use super::source::{BATCH, Batch, damaged, missing};
use super::window::Window;

/// Samples of one channel in an AAC frame: what an ADTS header can say.
const AAC_SAMPLES: u16 = 1024;

pub(super) struct Frames {
    codec: Codec,
    at: u64,
    config: Option<Config>,
    clock: Clock,
}

/// Counts samples: rounding never adds up.
#[derive(Debug, Default)]
struct Clock {
    /// Time where this sampling rate began, milliseconds.
    begin_ms: i64,
    rate: u32,
    samples: u64,
}

/// What stands in front of a frame.
struct Header {
    /// Bytes that are no coded data.
    len: u64,
    /// Bytes of the whole frame.
    frame_len: u64,
    samples: u16,
    rate: u32,
    config: Config,
}

impl Frames {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            at: 0,
            config: None,
            clock: Clock::default(),
        }
    }

    pub(super) async fn next(&mut self, window: &mut Window<'_>) -> Result<Option<Batch>, Stop> {
        let mut batch = Batch::default();
        while batch.samples.len() < BATCH {
            let bytes = window.get(self.at, aac::ADTS_HEADER_LEN as u64).await?;
            let bytes = bytes.ok_or_else(|| missing(&window.key))?;
            if bytes.is_empty() {
                break;
            }
            let header = Header::read(self.codec, &bytes).map_err(|what| damaged(&window.key, what))?;
            let end = self.at + header.frame_len;
            if window.of().is_none_or(|of| end > of) {
                return Err(damaged(&window.key, "ends within a frame"));
            }
            if self.config.as_ref().is_none_or(|known| !is_same(known, &header.config)) {
                if !batch.samples.is_empty() {
                    break;
                }
                self.config = Some(header.config);
            }
            self.clock.set_rate(header.rate);
            let dts_ms = self.clock.now_ms();
            self.clock.samples += u64::from(header.samples);
            batch.samples.push(FragmentSample {
                track: Track::Audio,
                dts_ms,
                cto_ms: 0,
                duration_ms: u32::try_from(self.clock.now_ms() - dts_ms).unwrap_or(0),
                size: u32::try_from(header.frame_len - header.len).unwrap_or(u32::MAX),
                key: true,
            });
            batch.data.push(self.at + header.len..end);
            self.at = end;
        }
        batch.configs.extend(self.config.clone());
        Ok((!batch.samples.is_empty()).then_some(batch))
    }
}

/// True if frames need no other decoder. Headers of MP3 frames say more than that.
fn is_same(known: &Config, config: &Config) -> bool {
    let parameters = |(_, _, bytes): &Config| {
        let header = mp3::FrameHeader::parse(bytes).ok();
        header.map(|header| (header.mpeg1, header.sample_rate, header.channels))
    };
    known == config || (known.0 == Codec::Mp3 && parameters(known) == parameters(config))
}

impl Header {
    fn read(codec: Codec, bytes: &[u8]) -> Result<Self, &'static str> {
        let (len, frame_len, samples, rate, config) = match codec {
            Codec::Mp3 => {
                let header = mp3::FrameHeader::parse(bytes).map_err(|_| "is no MP3 from there on")?;
                let record = bytes.get(..4).unwrap_or_default().to_vec();
                (0, header.frame_len, header.samples, header.sample_rate, record)
            }
            _ => {
                let frame = aac::AdtsFrame::read(bytes).map_err(|_| "is no ADTS from there on")?;
                let len = aac::ADTS_HEADER_LEN as u64;
                (
                    len,
                    frame.frame_len,
                    AAC_SAMPLES,
                    frame.core_rate(),
                    frame.config().to_vec(),
                )
            }
        };
        match u64::from(frame_len) > len {
            true => Ok(Self {
                len,
                frame_len: frame_len.into(),
                samples,
                rate,
                config: (codec, Track::Audio, config),
            }),
            false => Err("has a frame without data, or of free format"),
        }
    }
}

impl Clock {
    fn set_rate(&mut self, rate: u32) {
        if self.rate != rate {
            *self = Self {
                begin_ms: self.now_ms(),
                rate,
                samples: 0,
            };
        }
    }

    fn now_ms(&self) -> i64 {
        let rate = u64::from(self.rate.max(1));
        let ms = (self.samples * 1_000 + rate / 2) / rate;
        self.begin_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_does_not_add_up_and_another_rate_goes_on_from_there() {
        let mut clock = Clock::default();
        clock.set_rate(44_100);
        let mut times = Vec::new();
        for _ in 0..4 {
            times.push(clock.now_ms());
            clock.samples += 1_024;
        }
        assert_eq!(times, [0, 23, 46, 70]);
        clock.samples = 44_100 * 86_400;
        assert_eq!(clock.now_ms(), 86_400_000);
        clock.set_rate(48_000);
        clock.samples += 48_000;
        clock.set_rate(48_000);
        assert_eq!(clock.now_ms(), 86_401_000);
    }

    #[test]
    fn headers_that_lead_nowhere_are_refused() {
        let adts = [0xFF, 0xF1, 0x50, 0x80, 0x2F, 0x5F, 0xFC];
        let header = Header::read(Codec::Aac, &adts).unwrap();
        assert_eq!((header.len, header.frame_len, header.rate), (7, 378, 44_100));
        assert_eq!(header.config.2, [0x12, 0x10]);
        let mut empty = adts;
        (empty[4], empty[5]) = (0, 0xFF);
        assert!(Header::read(Codec::Aac, &empty).is_err());
        assert!(Header::read(Codec::Aac, &adts[..5]).is_err());
        assert!(Header::read(Codec::Mp3, &adts).is_err());
        let mp3 = [0xFF, 0xFB, 0x90, 0x64];
        let header = Header::read(Codec::Mp3, &mp3).unwrap();
        assert_eq!((header.len, header.frame_len, header.samples), (0, 417, 1_152));
        // Of free format: nobody says how long it is.
        assert!(Header::read(Codec::Mp3, &[0xFF, 0xFB, 0x00, 0x64]).is_err());
        let other_bit_rate = Header::read(Codec::Mp3, &[0xFF, 0xFB, 0xA0, 0x64]).unwrap();
        assert!(is_same(&header.config, &other_bit_rate.config));
        let other_rate = Header::read(Codec::Mp3, &[0xFF, 0xFB, 0x94, 0x64]).unwrap();
        assert!(!is_same(&header.config, &other_rate.config));
    }
}
