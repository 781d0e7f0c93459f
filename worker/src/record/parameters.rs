//! Decoder configurations of a transport stream: when they change, and what cannot be said in one. Pure.

use media::access_unit::{Track, UnitInfo, UnitKind};
use media::ts;

use super::body::data_of;
use super::state::{Config, State};

/// True for a decoder configuration other than the one in force.
pub(super) fn changes_parameters(state: &State, info: &UnitInfo, tag: &[u8]) -> bool {
    let current = match info.kind {
        UnitKind::VideoConfig => &state.video_config,
        UnitKind::AudioConfig => &state.audio_config,
        _ => return false,
    };
    current
        .as_ref()
        .is_some_and(|c| c.codec != info.codec as u8 || c.payload() != data_of(info, tag))
}

/// Parameters the muxer cannot use leave it without them: its units are then left out by name.
pub(super) fn configure(muxer: &mut ts::Muxer, config: &Config, kind: UnitKind) {
    let track = if kind == UnitKind::VideoConfig {
        Track::Video
    } else {
        Track::Audio
    };
    let _ = muxer.set_config(config.info(kind).codec, track, config.payload());
}

/// The name of a gap.
pub(super) fn reason(error: &ts::TsError) -> &'static str {
    match error {
        ts::TsError::NoConfig => "no_decoder_configuration",
        ts::TsError::Codec(_) => "not_possible_in_mpeg_ts",
        ts::TsError::TooLong(_) => "too_long_for_mpeg_ts",
    }
}
