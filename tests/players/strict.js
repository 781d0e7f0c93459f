// Parses a playlist strictly (RFC 8216) and prints what it found: node strict.js PLAYLIST
import { readFileSync } from "node:fs";
import HLS from "hls-parser";

HLS.setOptions({ strictMode: true });
const playlist = HLS.parse(readFileSync(process.argv[2], "utf8"));
console.log(
  JSON.stringify({
    type: playlist.playlistType,
    ended: playlist.endlist,
    version: playlist.version,
    target: playlist.targetDuration,
    segments: playlist.segments.map((segment) => ({
      uri: segment.uri,
      duration: segment.duration,
      discontinuity: segment.discontinuity,
      at: segment.programDateTime && segment.programDateTime.getTime(),
    })),
  }),
);
