//! Files of real encoders, muxed here, read back by ffprobe and decoded by ffmpeg.
