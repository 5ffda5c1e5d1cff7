package edgeres.sample;

/**
 * A picture's pixels to the model's input, by the numbers of preprocess.json. Pillow's arithmetic:
 * its resize in fixed point (two passes, 22 bits; as Pillow 13 orders them), the rest in float32.
 * No class of Android's is used.
 */
public final class Preprocess {
    private static final int BITS = 22;

    private Preprocess() {}

    /** A filter of Pillow's. */
    private interface Filter {
        double at(double x);
    }

    /** Whether width and height change places where a picture of this EXIF orientation is turned. */
    public static boolean lies(int orientation) {
        return orientation >= 5 && orientation <= 8;
    }

    /**
     * One line of a decoded picture to where it belongs in its RGB bytes, upright, over white.
     *
     * @param argb the line, not premultiplied; j its number; width and height the picture's as it
     *     is decoded
     * @param orientation as EXIF says it, 1 to 8
     * @param rgb (height, width, 3) of the upright picture
     */
    public static void place(int[] argb, int j, int width, int height, int orientation,
            byte[] rgb) {
        boolean right = orientation == 2 || orientation == 3 || orientation == 7
                || orientation == 8;
        boolean below = orientation == 3 || orientation == 4 || orientation == 6
                || orientation == 7;
        int down = below ? height - 1 - j : j;
        for (int i = 0; i < width; i++) {
            int across = right ? width - 1 - i : i;
            int at = 3 * (lies(orientation) ? across * height + down : down * width + across);
            int alpha = argb[i] >>> 24;
            for (int c = 0; c < 3; c++) {
                int sum = (argb[i] >> (16 - 8 * c) & 255) * alpha + 255 * (255 - alpha);
                // Pillow's division by 255, of numbers with 7 more bits.
                int more = (sum << 7) + (128 << 7);
                rgb[at + c] = (byte) (((more >> 8) + more) >> 8 >> 7);
            }
        }
    }

    /** The reach of a filter in pixels. */
    private static double reach(String name) {
        switch (name) {
            case "box": return 0.5;
            case "bilinear": return 1;
            case "bicubic": return 2;
            case "lanczos": return 3;
            default: throw new IllegalArgumentException("no interpolation: " + name);
        }
    }

    private static double sinc(double x) {
        return x == 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
    }

    private static Filter filter(String name) {
        switch (name) {
            case "box": return x -> x > -0.5 && x <= 0.5 ? 1 : 0;
            case "bilinear": return x -> Math.max(0, 1 - Math.abs(x));
            case "bicubic": return v -> {
                double a = -0.5, x = Math.abs(v);
                if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
                return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
            };
            default: return x -> x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
        }
    }

    /** One pass: `count` lines of `size` pixels become lines of `out`; steps are in bytes. */
    private static byte[] pass(byte[] in, int count, int inLine, int inStep, int outLine,
            int outStep, int size, float from, float to, int out, String name) {
        byte[] made = new byte[count * out * 3];
        double scale = (double) (to - from) / out, stretch = Math.max(scale, 1);
        double support = reach(name) * stretch;
        Filter filter = filter(name);
        for (int i = 0; i < out; i++) {
            double center = from + (i + 0.5) * scale, sum = 0;
            int first = Math.max(0, (int) (center - support + 0.5));
            int last = Math.min(size, (int) (center + support + 0.5));
            double[] w = new double[last - first];
            for (int k = 0; k < w.length; k++) {
                w[k] = filter.at((first + k - center + 0.5) * (1 / stretch));
                sum += w[k];
            }
            long[] whole = new long[w.length];
            for (int k = 0; k < w.length; k++) {
                double v = (sum != 0 ? w[k] / sum : w[k]) * (1 << BITS);
                whole[k] = (long) (v < 0 ? v - 0.5 : v + 0.5);
            }
            for (int line = 0; line < count; line++) {
                for (int c = 0; c < 3; c++) {
                    long total = 1 << (BITS - 1);
                    for (int k = 0; k < w.length; k++) {
                        total += (in[line * inLine + (first + k) * inStep + c] & 255) * whole[k];
                    }
                    long value = Math.max(0, Math.min(255, total >> BITS));
                    made[line * outLine + i * outStep + c] = (byte) value;
                }
            }
        }
        return made;
    }

    /** RGB bytes (height, width, 3) to (px, px, 3): the part from left, top to right, bottom. */
    public static byte[] resized(byte[] rgb, int width, int height, int px, String name,
            float left, float top, float right, float bottom) {
        boolean cut = left == (int) left && top == (int) top && right - left == px
                && bottom - top == px;
        if (name.equals("nearest") || cut) {
            byte[] made = new byte[px * px * 3];
            double dx = (double) (right - left) / px, dy = (double) (bottom - top) / px;
            double y = top + dy * 0.5;
            for (int j = 0; j < px; j++, y += dy) {
                double x = left + dx * 0.5;
                for (int i = 0; i < px; i++, x += dx) {
                    int at = Math.min(height - 1, (int) y) * width + Math.min(width - 1, (int) x);
                    System.arraycopy(rgb, at * 3, made, (j * px + i) * 3, 3);
                }
            }
            return made;
        }
        boolean across = px != width || left != 0 || right != width;
        boolean down = px != height || top != 0 || bottom != height;
        boolean downFirst = height > px && height - px > 2 * (width - px);
        byte[] at = rgb;
        int w = width, h = height;
        for (int turn = 0; turn < 2; turn++) {
            if (turn == (downFirst ? 1 : 0)) {
                if (!across) continue;
                at = pass(at, h, w * 3, 3, px * 3, 3, width, left, right, px, name);
                w = px;
            } else {
                if (!down) continue;
                at = pass(at, w, 3, w * 3, 3, w * 3, height, top, bottom, px, name);
                h = px;
            }
        }
        return at;
    }

    /** The same by the contract's rule: crop is "center" or "none". */
    public static byte[] framed(byte[] rgb, int width, int height, int px, int shortSide,
            String crop, String interpolation) {
        double left = 0, top = 0, right = width, bottom = height;
        if (!crop.equals("none")) {
            int least = Math.min(width, height);
            double s = (double) (least * px) / Math.min(shortSide, Math.max(px, least));
            left = Math.floor((width - s) / 2);
            top = Math.floor((height - s) / 2);
            right = left + s;
            bottom = top + s;
        }
        return resized(rgb, width, height, px, interpolation, (float) left, (float) top,
                (float) right, (float) bottom);
    }

    /**
     * RGB bytes (px, px, 3) to the values of the input: codes where scale isn't 0, else real ones.
     *
     * @param mean of pixel / 255, one or three numbers; std as many
     * @param planes whether the layout is NCHW
     * @param low the least code of the type, e.g. -128; high the largest
     */
    public static float[] values(byte[] rgb, float[] mean, float[] std, float scale, int zeroPoint,
            int low, int high, boolean planes) {
        int pixels = rgb.length / 3;
        float[] x = new float[rgb.length];
        for (int i = 0; i < pixels; i++) {
            for (int c = 0; c < 3; c++) {
                int k = mean.length > 1 ? c : 0;
                float v = ((rgb[i * 3 + c] & 255) / 255f - mean[k]) / std[k];
                if (scale != 0) {
                    v = (float) Math.rint(v / scale) + zeroPoint;
                    v = Math.max(low, Math.min(high, v));
                }
                x[planes ? c * pixels + i : i * 3 + c] = v;
            }
        }
        return x;
    }

    /** The indices of the k largest scores, the largest first: lines of labels.txt. */
    public static int[] likeliest(float[] scores, int k) {
        Integer[] order = new Integer[scores.length];
        for (int i = 0; i < order.length; i++) order[i] = i;
        java.util.Arrays.sort(order, (a, b) -> Float.compare(scores[b], scores[a]));
        int[] found = new int[Math.min(k, order.length)];
        for (int i = 0; i < found.length; i++) found[i] = order[i];
        return found;
    }
}
