// A bundle's model with the numbers of its preprocess.json: a picture's pixels to a share per class.
package edgeres.sample

import org.json.JSONArray
import org.json.JSONObject
import org.tensorflow.lite.Interpreter
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.exp

/**
 * Loads in some ms to s, so not on the main thread; one thread at a time may use it.
 *
 * @param read gives a file of the bundle by its name, e.g. "labels.txt"
 */
class Classifier(read: (String) -> ByteArray) : AutoCloseable {
    val labels: List<String> = String(read("labels.txt")).lines().filter { it.isNotEmpty() }
    private val said = JSONObject(String(read("preprocess.json")))
    private val dtype = said.getString("dtype")
    private val model: Interpreter

    init {
        require(!said.has("then")) { "this sample doesn't do the second scaling of preprocess.json" }
        val name = JSONObject(String(read("golden/golden.json"))).getString("model")
        val file = read(name)
        model = Interpreter(buffer(file.size).apply { put(file); rewind() })
    }

    /** The model's input of a picture: RGB bytes, (height, width, 3). */
    fun input(rgb: ByteArray, width: Int, height: Int): ByteBuffer {
        val px = said.getInt("size_px")
        val rule = said.optJSONObject("resize")
        require(rule != null || width == px && height == px) {
            "no rule says how a picture comes to $px x $px px"
        }
        val small = if (rule == null) rgb else Preprocess.framed(
            rgb, width, height, rule.getInt("size_px"), rule.getInt("short_side_px"),
            rule.getString("crop"), rule.getString("interpolation"))
        val (low, high) = when (dtype) {
            "int8" -> -128 to 127
            "uint8" -> 0 to 255
            "int16" -> -32768 to 32767
            else -> 0 to 0
        }
        val values = Preprocess.values(
            small, numbers("mean"), numbers("std"), said.optDouble("scale", 0.0).toFloat(),
            said.optInt("zero_point"), low, high, said.getString("layout") == "NCHW")
        val size = when (dtype) { "int8", "uint8" -> 1; "int16" -> 2; else -> 4 }
        return buffer(values.size * size).apply {
            for (v in values) when (size) {
                1 -> put(v.toInt().toByte())
                2 -> putShort(v.toInt().toShort())
                else -> putFloat(v)
            }
            rewind()
        }
    }

    /** A softmax of the model's answer to a picture, one number per line of labels.txt. */
    fun shares(rgb: ByteArray, width: Int, height: Int): FloatArray {
        val sink = model.getOutputTensor(0)
        val found = buffer(sink.numBytes())
        model.run(input(rgb, width, height), found)
        found.rewind()
        val size = sink.numBytes() / labels.size
        val codes = sink.quantizationParams()
        val y = DoubleArray(labels.size) {
            when (size) {
                1 -> (found.get() - codes.zeroPoint) * codes.scale.toDouble()
                2 -> (found.getShort() - codes.zeroPoint) * codes.scale.toDouble()
                else -> found.getFloat().toDouble()
            }
        }
        val most = y.max()
        val e = y.map { exp(it - most) }
        return FloatArray(e.size) { (e[it] / e.sum()).toFloat() }
    }

    override fun close() = model.close()

    private fun numbers(name: String): FloatArray {
        val list: JSONArray = said.getJSONArray(name)
        return FloatArray(list.length()) { list.getDouble(it).toFloat() }
    }

    private fun buffer(size: Int): ByteBuffer =
        ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())
}
